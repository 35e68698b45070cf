"""Which granularity fits what was annotated."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float64, Int64

from walkcut.errors import SegmentationError
from walkcut.hierarchy.cut_tree import CutTree
from walkcut.hierarchy.granularity import Granularity, Threshold

# What a project can learn, from coarse to fine: thresholds adapt to the image, numbers of segments do not.
CANDIDATE_GRANULARITIES: tuple[Granularity, ...] = tuple(Threshold(round(0.04 * step, 2)) for step in range(1, 25))


def leaf_overlaps(tree: CutTree, masks: Sequence[Bool[np.ndarray, "y x"]]) -> Int64[np.ndarray, "r k"]:
    """The number of pixels that each mask (row) shares with each leaf. Raises `SegmentationError` for other sizes."""
    for mask in masks:
        if mask.shape != tree.size:
            raise SegmentationError(
                f"a mask of {mask.shape} does not fit an image of {tree.size}: scale it by nearest pixel"
            )
    leaves = tree.hierarchy.leaf_count
    rows = [np.bincount(tree.leaves[mask], minlength=leaves) for mask in masks]
    return np.array(rows, np.int64).reshape(-1, leaves)


def covering_scores(
    tree: CutTree,
    masks: Sequence[Bool[np.ndarray, "y x"]],
    granularities: Sequence[Granularity] = CANDIDATE_GRANULARITIES,
) -> Float64[np.ndarray, " g"]:
    """How well the segments at each granularity cover the annotated regions, in [0, 1].

    Segmentation covering (Arbeláez et al. 2011, section 2.3.3) of the annotated regions alone: each one's best
    intersection over union with a segment, weighted by its pixels. What a segment holds beyond the region counts
    against it, whether annotated or not: masks are of whole objects, so that too coarse a cut pays for what it joins,
    and too fine a one for what it leaves out, however little of the image was annotated. Regions may overlap.
    Raises `SegmentationError` where nothing was annotated.
    """
    overlaps = leaf_overlaps(tree, masks)
    regions = overlaps.sum(1)
    if not regions.any():
        raise SegmentationError("no annotated pixel, which any granularity would fit: annotate a region")
    return np.array([_covering(*_joined(overlaps, tree.areas, tree.segment_of(each)), regions) for each in granularities])


def _joined(
    overlaps: Int64[np.ndarray, "r k"], areas: Int64[np.ndarray, " k"], groups: Int64[np.ndarray, " k"]
) -> tuple[Int64[np.ndarray, "r s"], Int64[np.ndarray, " s"]]:
    """Overlaps and areas of the segments that leaves join to."""
    table = np.zeros((int(groups.max()) + 1, len(overlaps) + 1), np.int64)
    np.add.at(table, groups, np.column_stack([overlaps.T, areas]))
    return table[:, :-1].T, table[:, -1]


def _covering(
    overlaps: Int64[np.ndarray, "r s"], areas: Int64[np.ndarray, " s"], regions: Int64[np.ndarray, " r"]
) -> float:
    """The covering of regions, of so many pixels each, by segments."""
    union = regions[:, None] + areas - overlaps
    return float(regions @ (overlaps / union).max(1)) / int(regions.sum())
