"""The feedback in submitted annotations, and the profile that a project learns from it."""

import hashlib
from base64 import b64decode, b64encode
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64

from walkcut.hierarchy.cut_tree import CutTree
from walkcut.hierarchy.granularity import Granularity, Level
from walkcut.labelstudio import parse_timestamp
from walkcut.learning.granularity_fit import CANDIDATE_GRANULARITIES, covering_scores, leaf_overlaps
from walkcut.learning.prototypes import Prototypes, build_prototypes
from walkcut.storage import FeedbackRow

_MIN_TASKS = 2  # that a granularity is learned from, so that one odd image does not decide
# A few images are weak evidence: smoothed over its neighbours, the best granularity covers further images of BSDS500
# better.
_SMOOTHING = np.array([1, 2, 3, 4, 5, 4, 3, 2, 1]) / 25
_LARGE_REGION = 0.05  # fraction of the image: smaller regions have one descriptor
_MAX_PARTS = 4
_MIN_PART = 0.1  # fraction of the region
_HALF = np.dtype("<f2")  # descriptors are no more exact than this

LabelledMask = tuple[str, Bool[np.ndarray, "y x"]]
AnnotationRef = tuple[int, int]  # task id and annotation id


@dataclass(frozen=True)
class LabelExample:
    """A region, or part of one: its label, descriptor (half precision) and fraction of the image's area."""

    label: str
    descriptor: tuple[float, ...]
    area_fraction: float

    def to_json(self) -> dict[str, Any]:
        """Return a JSON document."""
        return vars(self) | {"descriptor": b64encode(np.array(self.descriptor, _HALF).tobytes()).decode()}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "LabelExample":
        """Return the example of a document from `to_json`."""
        descriptor = np.frombuffer(b64decode(document["descriptor"]), _HALF)
        return cls(**{**document, "descriptor": tuple(map(float, descriptor))})


@dataclass(frozen=True)
class AnnotationFeedback:
    """The feedback of one submitted annotation.

    Attributes:
        updated_at: when the annotation was changed last, in ISO 8601
        segmenter_version: the version that the tree is from; descriptors of different versions cannot be compared
        covering_scores: how well segments cover the annotated regions, by granularity as text
        source_model_version: the model version of the prediction that the annotation was started from, else empty
    """

    project_id: str
    annotation_id: int
    task_id: int
    updated_at: str
    segmenter_version: str
    covering_scores: Mapping[str, float]
    examples: tuple[LabelExample, ...]
    source_model_version: str = ""

    @property
    def reference(self) -> AnnotationRef:
        """The annotation that this is the feedback of."""
        return self.task_id, self.annotation_id

    @property
    def labels(self) -> frozenset[str]:
        """The labels that there are examples of."""
        return frozenset(example.label for example in self.examples)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON document."""
        return vars(self) | {
            "covering_scores": dict(self.covering_scores),
            "examples": [example.to_json() for example in self.examples],
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "AnnotationFeedback":
        """Return the feedback of a document from `to_json`."""
        return cls(**{**document, "examples": tuple(map(LabelExample.from_json, document["examples"]))})

    def to_row(self) -> FeedbackRow:
        """Return the row to save. Raises `RequestError` if `updated_at` is no time."""
        updated = parse_timestamp(self.updated_at)
        return FeedbackRow(self.project_id, self.annotation_id, self.task_id, updated, self.labels, self.to_json())


@dataclass(frozen=True)
class ProjectProfile:
    """The granularity and labels learned from a project's feedback, each with the annotations that it is from.

    Label `i` of the prototypes is `labels[i]`.
    """

    granularity: Granularity | None = None
    labels: tuple[str, ...] = ()
    prototypes: Prototypes | None = None
    granularity_from: tuple[AnnotationRef, ...] = ()
    labels_from: Mapping[str, tuple[AnnotationRef, ...]] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Eight hexadecimal digits that change when predictions may; empty if nothing was learned."""
        if self.granularity is None and self.prototypes is None:
            return ""
        digest = hashlib.sha256(repr((str(self.granularity), self.labels)).encode())
        if self.prototypes is not None:
            for array in (self.prototypes.descriptors, self.prototypes.labels, self.prototypes.images):
                digest.update(array.tobytes())
        return digest.hexdigest()[:8]


def extract_feedback(
    tree: CutTree,
    regions: Sequence[LabelledMask],
    *,
    project_id: str,
    annotation_id: int,
    task_id: int,
    updated_at: str,
    segmenter_version: str,
    generic_labels: Collection[str] = (),
    source_model_version: str = "",
) -> AnnotationFeedback:
    """Return the feedback of an annotation from its regions, masks of the image's size, and the image's cut tree.

    Regions with `generic_labels`, which name no kind of object, give covering scores but no examples. Empty regions are
    ignored. Raises `SegmentationError` for masks of another size and for trees without descriptors.
    """
    drawn = [(label, mask) for label, mask in regions if mask.any()]
    masks = [mask for _, mask in drawn]
    scores = covering_scores(tree, masks).tolist() if masks else []
    examples = [
        LabelExample(label, tuple(map(float, descriptor.astype(_HALF))), area_fraction)
        for (label, _), overlap in zip(drawn, leaf_overlaps(tree, masks), strict=True)
        if label not in generic_labels
        for descriptor, area_fraction in _region_descriptors(tree, overlap)
    ]
    return AnnotationFeedback(
        project_id,
        annotation_id,
        task_id,
        updated_at,
        segmenter_version,
        {str(granularity): score for granularity, score in zip(CANDIDATE_GRANULARITIES, scores, strict=False)},
        tuple(examples),
        source_model_version,
    )


def fit_profile(
    feedback: Iterable[AnnotationFeedback], segmenter_version: str, labels: Collection[str]
) -> ProjectProfile:
    """Fit a project's profile to the feedback on this segmenter's trees, for the labels that the project still has.

    The order of feedback and labels does not matter.
    """
    valid = sorted((item for item in feedback if item.segmenter_version == segmenter_version), key=_reference)
    scored = [item for item in valid if item.covering_scores.keys() >= set(map(str, CANDIDATE_GRANULARITIES))]
    granularity = _best_granularity(scored)
    sources: defaultdict[str, list[AnnotationRef]] = defaultdict(list)
    for item in valid:
        for label in item.labels & set(labels):
            sources[label].append(item.reference)
    learned = tuple(sorted(sources))
    return ProjectProfile(
        granularity,
        learned,
        _prototypes(valid, learned),
        tuple(map(_reference, scored)) if granularity is not None else (),
        {label: tuple(sources[label]) for label in learned},
    )


def suggest_labels(
    tree: CutTree, groups: Int64[np.ndarray, " k"], profile: ProjectProfile, threshold: float
) -> list[tuple[str | None, float]]:
    """Return for each segment its likeliest label and the confidence in [0, 1]; no label below the `threshold`.

    `groups` holds the segment of each leaf of the tree.
    """
    if profile.prototypes is None:
        return [(None, 0.0)] * (int(groups.max()) + 1)
    confidences = profile.prototypes.confidences(tree.segment_descriptors(groups))
    return [
        (profile.labels[best] if confidence >= threshold else None, float(confidence))
        for best, confidence in zip(confidences.argmax(1), confidences.max(1), strict=True)
    ]


def _reference(feedback: AnnotationFeedback) -> AnnotationRef:
    return feedback.reference


def _region_descriptors(
    tree: CutTree, overlap: Int64[np.ndarray, " k"]
) -> Iterator[tuple[Float64[np.ndarray, " c"], float]]:
    """Yield descriptors of a region, given its number of pixels in each leaf, with their fractions of the image's area.

    First the whole region's, then those of its parts, if there are several: the largest overlaps with medium segments.
    """
    groups = tree.segment_of(Level.MEDIUM)
    pixels = np.bincount(groups, overlap)
    whole = pixels.sum()
    parts = [part for part in np.argsort(-pixels, kind="stable")[:_MAX_PARTS] if pixels[part] >= _MIN_PART * whole]
    has_parts = len(parts) > 1 and whole >= _LARGE_REGION * tree.leaves.size
    areas = np.stack([overlap, *(np.where(groups == part, overlap, 0) for part in parts if has_parts)])
    yield from zip(tree.part_descriptors(areas), (areas.sum(1) / tree.leaves.size).tolist(), strict=True)


def _best_granularity(feedback: Sequence[AnnotationFeedback]) -> Granularity | None:
    """Return the granularity with the best smoothed mean covering, the coarsest of equals; `None` for too few tasks.

    A task counts once, with the mean of its annotations. Beyond both ends the covering counts as 0.
    """
    scores: defaultdict[int, list[list[float]]] = defaultdict(list)
    for item in feedback:
        scores[item.task_id].append([item.covering_scores[str(candidate)] for candidate in CANDIDATE_GRANULARITIES])
    if len(scores) < _MIN_TASKS:
        return None
    mean = np.mean([np.mean(annotations, axis=0) for annotations in scores.values()], axis=0)
    smooth = np.convolve(mean, _SMOOTHING, "same")
    return CANDIDATE_GRANULARITIES[int(smooth.round(9).argmax())]  # equal sums may differ by rounding


def _prototypes(feedback: Sequence[AnnotationFeedback], labels: Sequence[str]) -> Prototypes | None:
    """Return the prototypes of these labels; `None` without examples."""
    examples = [(item.task_id, example) for item in feedback for example in item.examples if example.label in labels]
    if not examples:
        return None
    return build_prototypes(
        np.array([example.descriptor for _, example in examples], np.float32),
        np.array([labels.index(example.label) for _, example in examples], np.int64),
        [task_id for task_id, _ in examples],
    )
