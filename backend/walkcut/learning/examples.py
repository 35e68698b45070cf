"""What submitted annotations teach about a project, and what a project has learned from them."""

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
from walkcut.learning.granularity_fit import CANDIDATE_GRANULARITIES, covering_scores, leaf_overlaps
from walkcut.learning.prototypes import Prototypes, build_prototypes

_FEWEST_TASKS = 2  # that a granularity is learned from, so that one odd image does not decide
# Few images tell little: chosen with its neighbours' fit, a granularity covers other images of BSDS500 better.
_NEIGHBOURS = np.array([1, 2, 3, 4, 5, 4, 3, 2, 1]) / 25
_LARGE = 0.05  # of the image: smaller regions have one look
_MOST_LOOKS = 4
_LEAST_LOOK = 0.1  # of the region
Region = tuple[str, Bool[np.ndarray, "y x"]]
AnnotationRef = tuple[int, int]  # a task and an annotation

_HALF = np.dtype("<f2")  # of descriptors: as fine as they are known


@dataclass(frozen=True)
class LabelExample:
    """How a region of this label looked: its descriptor, in half precision, and the share of the image it covers."""

    label: str
    descriptor: tuple[float, ...]
    share: float

    def to_json(self) -> dict[str, Any]:
        """As text and numbers."""
        return vars(self) | {"descriptor": b64encode(np.array(self.descriptor, _HALF).tobytes()).decode()}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "LabelExample":
        """What `to_json` gave."""
        descriptor = np.frombuffer(b64decode(document["descriptor"]), _HALF)
        return cls(document["label"], tuple(map(float, descriptor)), document["share"])


@dataclass(frozen=True)
class AnnotationFeedback:
    """What one submitted annotation teaches.

    `covering_scores` says for granularities, in their printed form, how well segments of it cover the annotated regions;
    `segmenter` is the version that made them, beside which descriptors of other versions mean nothing; `source_model_version` the
    model version of the prediction that the annotation was started from, empty where it was started from none.
    """

    project: str
    annotation: int
    task: int
    updated_at: str
    segmenter: str
    covering_scores: Mapping[str, float]
    examples: tuple[LabelExample, ...]
    source_model_version: str = ""

    def to_json(self) -> dict[str, Any]:
        """As text, numbers and lists."""
        return vars(self) | {
            "coverings": {**self.covering_scores},
            "examples": [each.to_json() for each in self.examples],
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "AnnotationFeedback":
        """What `to_json` gave."""
        return cls(**{**document, "examples": tuple(map(LabelExample.from_json, document["examples"]))})


@dataclass(frozen=True)
class ProjectProfile:
    """What a project's lessons come to, and which annotations taught each value.

    Label `i` of the prototypes is `labels[i]`.
    """

    granularity: Granularity | None = None
    labels: tuple[str, ...] = ()
    prototypes: Prototypes | None = None
    granularity_from: tuple[AnnotationRef, ...] = ()
    labels_from: Mapping[str, tuple[AnnotationRef, ...]] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Eight hexadecimal digits that change when predictions may; empty where nothing was learned."""
        if self.granularity is None and self.prototypes is None:
            return ""
        digest = hashlib.sha256(repr((str(self.granularity), self.labels)).encode())
        if self.prototypes is not None:
            for array in (self.prototypes.descriptors, self.prototypes.labels, self.prototypes.images):
                digest.update(array.tobytes())
        return digest.hexdigest()[:8]


def extract_feedback(
    tree: CutTree,
    regions: Sequence[Region],
    *,
    project: str,
    annotation: int,
    task: int,
    updated_at: str,
    segmenter: str,
    generic_labels: Collection[str] = (),
    source_model_version: str = "",
) -> AnnotationFeedback:
    """What an annotation teaches: its regions, each a label and a mask of the image's size, beside the cut tree.

    Regions of `generic_labels` labels, which say nothing of what they show, count for the coverings alone; regions without a
    pixel do not count. Raises `SegmentationError` for masks of another size and for trees without descriptors.
    """
    drawn = [(label, mask) for label, mask in regions if mask.any()]
    masks = [mask for _, mask in drawn]
    fits = covering_scores(tree, masks).tolist() if masks else []
    examples = [
        LabelExample(label, tuple(map(float, look.astype(_HALF))), share)
        for (label, _), overlap in zip(drawn, leaf_overlaps(tree, masks), strict=True)
        if label not in generic_labels
        for look, share in _region_descriptors(tree, overlap)
    ]
    printed = {str(granularity): fit for granularity, fit in zip(CANDIDATE_GRANULARITIES, fits, strict=False)}
    return AnnotationFeedback(
        project, annotation, task, updated_at, segmenter, printed, tuple(examples), source_model_version
    )


def fit_profile(lessons: Iterable[AnnotationFeedback], segmenter: str, labels: Collection[str]) -> ProjectProfile:
    """What lessons of this segmenter's version come to, for the labels that a project still has.

    The order of lessons and of labels does not matter.
    """
    valid = sorted((each for each in lessons if each.segmenter == segmenter), key=_source)
    fitting = [lesson for lesson in valid if lesson.covering_scores.keys() >= set(map(str, CANDIDATE_GRANULARITIES))]
    granularity = _best_granularity(fitting)
    sources: defaultdict[str, list[AnnotationRef]] = defaultdict(list)
    for lesson in valid:
        for label in sorted({example.label for example in lesson.examples} & set(labels)):
            sources[label].append(_source(lesson))
    known = tuple(sorted(sources))
    return ProjectProfile(
        granularity,
        known,
        _prototypes(valid, known),
        tuple(map(_source, fitting)) if granularity is not None else (),
        {label: tuple(sources[label]) for label in known},
    )


def suggest_labels(
    tree: CutTree, groups: Int64[np.ndarray, " k"], learned: ProjectProfile, threshold: float
) -> list[tuple[str | None, float]]:
    """For each segment the likeliest label and its confidence in [0, 1]; no label below the `threshold`.

    `groups` says which segment each leaf of the tree belongs to.
    """
    if learned.prototypes is None:
        return [(None, 0.0)] * (int(groups.max()) + 1)
    confidences = learned.prototypes.confidences(tree.segment_descriptors(groups))
    return [
        (learned.labels[best] if sure >= threshold else None, float(sure))
        for best, sure in zip(confidences.argmax(1), confidences.max(1), strict=True)
    ]


def _source(lesson: AnnotationFeedback) -> AnnotationRef:
    return lesson.task, lesson.annotation


def _region_descriptors(
    tree: CutTree, overlap: Int64[np.ndarray, " k"]
) -> Iterator[tuple[Float64[np.ndarray, " c"], float]]:
    """How a region looks that shares so many pixels with each leaf: as a whole, and in parts where there are several.

    Parts are its pieces of the segments at medium granularity, the largest few. With each look goes its share of the
    image.
    """
    groups = tree.segment_of(Level.MEDIUM)
    pieces = np.bincount(groups, overlap)
    whole = pieces.sum()
    parts = [part for part in np.argsort(-pieces, kind="stable")[:_MOST_LOOKS] if pieces[part] >= _LEAST_LOOK * whole]
    several = len(parts) > 1 and whole >= _LARGE * tree.leaves.size
    areas = np.stack([overlap, *(np.where(groups == part, overlap, 0) for part in parts if several)])
    yield from zip(tree.part_descriptors(areas), (areas.sum(1) / tree.leaves.size).tolist(), strict=True)


def _best_granularity(lessons: Sequence[AnnotationFeedback]) -> Granularity | None:
    """The one with the best mean covering, smoothed, of equals the coarsest; none where too few tasks tell.

    A task counts once, with the mean of its annotations. Beyond both ends nothing fits.
    """
    fits: defaultdict[int, list[list[float]]] = defaultdict(list)
    for lesson in lessons:
        fits[lesson.task].append([lesson.covering_scores[str(granularity)] for granularity in CANDIDATE_GRANULARITIES])
    if len(fits) < _FEWEST_TASKS:
        return None
    mean = np.mean([np.mean(annotations, axis=0) for annotations in fits.values()], axis=0)
    smooth = np.convolve(mean, _NEIGHBOURS, "same")
    return CANDIDATE_GRANULARITIES[int(smooth.round(9).argmax())]  # sums differ by rounding alone


def _prototypes(lessons: Sequence[AnnotationFeedback], labels: Sequence[str]) -> Prototypes | None:
    """What these labels look like in the examples of lessons; `None` where no example is."""
    examples = [(lesson.task, example) for lesson in lessons for example in lesson.examples if example.label in labels]
    if not examples:
        return None
    return build_prototypes(
        np.array([example.descriptor for _, example in examples], np.float32),
        np.array([labels.index(example.label) for _, example in examples], np.int64),
        [task for task, _ in examples],
    )
