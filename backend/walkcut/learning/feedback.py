"""The feedback in submitted annotations: which granularity covers them best, and examples of their labels."""

from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from walkcut.hierarchy.cut_tree import CutTree
from walkcut.hierarchy.granularity import Level
from walkcut.labelstudio.config import BrushControl
from walkcut.labelstudio.predictions import Region
from walkcut.labelstudio.tasks import Submission
from walkcut.learning.granularity_fit import CANDIDATE_GRANULARITIES, covering_scores, leaf_overlaps

_LARGE_REGION = 0.05  # fraction of the image: smaller regions have one descriptor
_MAX_PARTS = 4
_MIN_PART = 0.1  # fraction of the region
_HALF = np.dtype("<f2")  # descriptors are no more exact than this

AnnotationRef = tuple[int, int]  # task id and annotation id


@dataclass(frozen=True)
class AnnotatedImage:
    """The regions drawn on one image of a task."""

    control: BrushControl
    tree: CutTree
    regions: Sequence[Region]


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
    """The feedback of one submitted annotation."""

    project_id: str
    annotation_id: int
    task_id: int
    updated_at: str  # when the annotation was changed last, in ISO 8601
    segmenter_version: str  # of the tree; descriptors of different versions cannot be compared
    covering_scores: Mapping[str, float]  # how well segments cover the annotated regions, by granularity as text
    examples: tuple[LabelExample, ...]
    source_model_version: str = ""  # of the prediction that the annotation was started from, if any

    @property
    def reference(self) -> AnnotationRef:
        """The annotation."""
        return self.task_id, self.annotation_id

    @property
    def labels(self) -> frozenset[str]:
        """The labels that there are examples of."""
        return frozenset(example.label for example in self.examples)

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

    Regions with a neutral label or none, which name no kind of object, give scores but no examples; nor do unmodified
    regions, whose labels walkcut gave itself. Empty regions are ignored.
    Raises `SegmentationError` for masks of another size than the image's and for trees without descriptors.
    """
    scores = [
        covering_scores(image.tree, (region.mask for region in image.regions))
        for image in images
        if any(region.mask.any() for region in image.regions)
    ]
    means = np.mean(scores, axis=0).tolist() if scores else []
    return AnnotationFeedback(
        project_id,
        submission.annotation_id,
        submission.task.id,
        submission.updated_at,
        segmenter_version,
        {str(granularity): mean for granularity, mean in zip(CANDIDATE_GRANULARITIES, means, strict=False)},
        tuple(example for image in images for example in _examples(image)),
        source_model_version,
    )


def _examples(image: AnnotatedImage) -> Iterator[LabelExample]:
    regions = [region for region in image.regions if image.control.is_class(region.label)]
    overlaps = leaf_overlaps(image.tree, (region.mask for region in regions))
    for region, overlap in zip(regions, overlaps, strict=True):
        for descriptor, area_fraction in (
            _region_descriptors(image.tree, overlap) if region.modified and overlap.any() else ()
        ):
            yield LabelExample(region.label, tuple(map(float, descriptor.astype(_HALF))), area_fraction)


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
