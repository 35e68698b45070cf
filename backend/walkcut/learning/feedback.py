"""The feedback in submitted annotations: which granularity fits, examples of labels, and which names were kept."""

from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from walkcut.hierarchy.cut_tree import CutTree
from walkcut.hierarchy.granularity import Level
from walkcut.labelstudio.annotations import suggested_names
from walkcut.labelstudio.predictions import Region
from walkcut.labelstudio.tasks import Submission, TaskImage
from walkcut.learning.granularity_fit import CANDIDATE_GRANULARITIES, covering_scores, leaf_overlaps

_MIN_SEGMENT = 0.003  # fraction of the image
_MAX_SEGMENTS = 12
_TOUCHED = 0.1  # fraction of the segment or of a region; less is an inexact border
_HALF = np.dtype("<f2")  # descriptors are no more exact than this

AnnotationRef = tuple[int, int]  # task id and annotation id


@dataclass(frozen=True)
class AnnotatedImage:
    """The regions drawn on one image of a task."""

    task_image: TaskImage
    tree: CutTree
    regions: Sequence[Region]


@dataclass(frozen=True)
class LabelExample:
    """A region or a segment: its label, descriptor (half precision), centre and area.

    The label of a segment is empty if no named region touches it. `y`, `x` and the area are fractions of the image's.
    """

    label: str
    descriptor: tuple[float, ...]
    y: float
    x: float
    area_fraction: float
    is_segment: bool = False

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
    """The feedback of one submitted annotation."""

    project_id: str
    annotation_id: int
    task_id: int
    updated_at: str  # when the annotation was changed last, in ISO 8601
    segmenter_version: str  # of the tree; descriptors of different versions cannot be compared
    covering_scores: Mapping[str, float]  # how well segments cover the annotated regions, by granularity as text
    examples: tuple[LabelExample, ...]
    source_model_version: str = ""  # of the prediction that the annotation was started from, if any
    names_given: int = 0  # by walkcut to regions that were submitted
    names_kept: int = 0  # of these, by the annotator

    @property
    def reference(self) -> AnnotationRef:
        """The annotation."""
        return self.task_id, self.annotation_id

    @property
    def labels(self) -> frozenset[str]:
        """The labels that there are examples of."""
        return frozenset(example.label for example in self.examples if example.label)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON document."""
        return vars(self) | {"examples": [example.to_json() for example in self.examples]}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "AnnotationFeedback":
        """Return the feedback of a document from `to_json`."""
        return cls(**{**document, "examples": tuple(map(LabelExample.from_json, document["examples"]))})


def extract_feedback(
    images: Sequence[AnnotatedImage],
    submission: Submission,
    *,
    project_id: str,
    segmenter_version: str,
    source_model_version: str = "",
) -> AnnotationFeedback:
    """Return the feedback of an annotation of a task's images: all examples, and the mean of the covering scores.

    Regions with a neutral label or none, which name no kind of object, give scores but no examples: what they cover
    counts as not annotated. Unmodified regions, whose labels walkcut gave itself, are no examples either. Empty regions
    are ignored.
    Raises `SegmentationError` for masks of another size than the image's and for trees without descriptors.
    """
    scores = [
        covering_scores(image.tree, (region.mask for region in image.regions))
        for image in images
        if any(region.mask.any() for region in image.regions)
    ]
    means = np.mean(scores, axis=0).tolist() if scores else []
    names = [pair for image in images for pair in suggested_names(submission.result, image.task_image)]
    return AnnotationFeedback(
        project_id,
        submission.annotation_id,
        submission.task.id,
        submission.updated_at,
        segmenter_version,
        {str(granularity): mean for granularity, mean in zip(CANDIDATE_GRANULARITIES, means, strict=False)},
        tuple(example for image in images for example in _examples(image)),
        source_model_version,
        len(names),
        sum(given == submitted for given, submitted in names),
    )


def _examples(image: AnnotatedImage) -> Iterator[LabelExample]:
    """Yield an example of each named region, and of the largest segments that are in one, or that none touches."""
    tree = image.tree
    regions = [region for region in image.regions if image.task_image.tag.is_class(region.label) and region.mask.any()]
    labels = [region.label if region.modified else None for region in regions]
    named = [label for label in labels if label is not None]
    if not named:
        return
    overlaps = leaf_overlaps(tree, (region.mask for region in regions))
    yield from _label_examples(tree, overlaps[[label is not None for label in labels]], named, is_segment=False)
    areas = tree.segment_areas(tree.segment_of(Level.MEDIUM))
    segment_labels = _segment_labels(areas, overlaps / tree.areas, labels)
    sizes = areas.sum(1)
    largest = np.argsort(-sizes, kind="stable")[:_MAX_SEGMENTS]
    rows = [row for row in largest if segment_labels[row] is not None and sizes[row] >= _MIN_SEGMENT * tree.leaves.size]
    yield from _label_examples(tree, areas[rows], [segment_labels[row] or "" for row in rows], is_segment=True)


def _segment_labels(
    areas: Int64[np.ndarray, "s k"], fractions: Float64[np.ndarray, "r k"], labels: Sequence[str | None]
) -> list[str | None]:
    """Return the label that covers more than half of each segment, or "" where no region touches it, else `None`.

    `fractions` are the regions' of the leaves; a region without a label touches segments, and gives them none. A stroke
    touches the segment that it is in, however large that is.
    """
    pixels = areas @ fractions.T  # segment × region
    sizes = areas.sum(1)
    names = list(dict.fromkeys(labels))
    covered = np.stack([pixels[:, [label == name for label in labels]].sum(1) for name in names], axis=1)
    touched = (pixels > _TOUCHED * np.minimum(sizes[:, None], pixels.sum(0))).any(1)
    return [
        names[row.argmax()] if row.max() > size / 2 else None if is_touched else ""
        for row, size, is_touched in zip(covered, sizes, touched, strict=True)
    ]


def _label_examples(
    tree: CutTree, areas: Int64[np.ndarray, "s k"], labels: Sequence[str], *, is_segment: bool
) -> Iterator[LabelExample]:
    descriptors: Sequence[Iterable[float]] = list(tree.part_descriptors(areas).astype(_HALF))
    layouts = tree.part_layouts(areas).round(4).tolist()
    for label, descriptor, (y, x, area_fraction) in zip(labels, descriptors, layouts, strict=True):
        yield LabelExample(label, tuple(map(float, descriptor)), y, x, area_fraction, is_segment)
