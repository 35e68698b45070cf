"""The segments of pictures folded by what annotators drew (DWC supplement A)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from walkcut.hierarchy.cut_tree import CutTree
from walkcut.hierarchy.granularity import Level
from walkcut.labelstudio import AnnotatedRegion, BrushTarget, Region, label_map
from walkcut.learning.oracle_merge import main_regions

_WHOLE = 0.98  # of the picture: an annotation that covers so much leaves nothing to fold


@dataclass(frozen=True)
class Drawing:
    """What was drawn on one picture of a task."""

    target: BrushTarget
    tree: CutTree
    regions: Sequence[AnnotatedRegion]


def folded(drawings: Sequence[Drawing], min_area: float) -> list[tuple[BrushTarget, list[Region]]]:
    """The fine segments of each picture folded by what was drawn; nothing where the drawings leave nothing to fold."""
    return [(drawing.target, regions) for drawing in drawings if (regions := _fold(drawing, min_area))]


def _fold(drawing: Drawing, min_area: float) -> list[Region]:
    """A region for what each drawn one folds (DWC supplement A), and for each segment that none touches."""
    numbers = label_map(drawing.regions, drawing.tree.size)
    if not numbers.any() or np.count_nonzero(numbers) > _WHOLE * numbers.size:
        return []
    segments = drawing.tree.labels(Level.FINE).astype(np.int64)
    owners = main_regions(segments, numbers)[segments]
    labels = {number: region.label for number, region in enumerate(drawing.regions, 1)}
    folded = [Region(owners == number, label, 1.0) for number, label in labels.items() if (owners == number).any()]
    neutral = drawing.target.neutral
    bare = [segments == segment for segment in np.unique(segments[owners == 0])]
    left = [Region(mask, neutral[place % len(neutral)], 0.0) for place, mask in enumerate(bare)]
    return [*folded, *(region for region in left if region.mask.mean() >= min_area)]
