"""The segments of images folded by what annotators drew (DWC supplement A)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from walkcut.hierarchy.cut_tree import CutTree
from walkcut.hierarchy.granularity import Level
from walkcut.labelstudio import BrushControl, Region, label_map
from walkcut.learning.oracle_merge import majority_region

_WHOLE = 0.98  # of the image: an annotation that covers so much leaves nothing to fold


@dataclass(frozen=True)
class AnnotatedImage:
    """What was drawn on one image of a task."""

    control: BrushControl
    tree: CutTree
    regions: Sequence[Region]


def merge_by_annotation(drawings: Sequence[AnnotatedImage], min_area: float) -> list[tuple[BrushControl, list[Region]]]:
    """The fine segments of each image folded by what was drawn; nothing where the drawings leave nothing to fold."""
    return [(drawing.control, regions) for drawing in drawings if (regions := _merge_image(drawing, min_area))]


def _merge_image(drawing: AnnotatedImage, min_area: float) -> list[Region]:
    """A region for what each drawn one folds (DWC supplement A), and for each segment that none touches."""
    numbers = label_map(drawing.regions, drawing.tree.size)
    if not numbers.any() or np.count_nonzero(numbers) > _WHOLE * numbers.size:
        return []
    segments = drawing.tree.labels(Level.FINE).astype(np.int64)
    owners = majority_region(segments, numbers)[segments]
    labels = {number: region.label for number, region in enumerate(drawing.regions, 1)}
    merge_by_annotation = [
        Region(owners == number, label, 1.0) for number, label in labels.items() if (owners == number).any()
    ]
    generic_labels = drawing.control.generic_labels
    bare = [segments == segment for segment in np.unique(segments[owners == 0])]
    left = [Region(mask, generic_labels[place % len(generic_labels)], 0.0) for place, mask in enumerate(bare)]
    return [*merge_by_annotation, *(region for region in left if region.mask.mean() >= min_area)]
