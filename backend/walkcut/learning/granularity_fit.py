"""How well the segments at each granularity fit annotated regions."""

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Bool, Float64, Int64

from walkcut.errors import SegmentationError
from walkcut.hierarchy.cut_tree import CutTree
from walkcut.hierarchy.granularity import Granularity, Threshold

# The granularities that a project can learn, from coarse to fine: thresholds, unlike segment counts, adapt to images.
CANDIDATE_GRANULARITIES: tuple[Granularity, ...] = tuple(Threshold(round(0.04 * step, 2)) for step in range(1, 25))


def leaf_overlaps(tree: CutTree, masks: Iterable[Bool[np.ndarray, "y x"]]) -> Int64[np.ndarray, "r k"]:
    """Return the number of pixels that each mask (row) shares with each leaf (column).

    One mask is needed at a time. Raises `SegmentationError` for masks that are not of the image's size.
    """
    rows, leaves = [], tree.hierarchy.leaf_count
    for mask in masks:
        if mask.shape != tree.size:
            raise SegmentationError(
                f"a mask of {mask.shape} does not fit an image of {tree.size}: scale it with nearest neighbours"
            )
        rows.append(np.bincount(tree.leaves[mask], minlength=leaves))
    return np.array(rows, np.int64).reshape(-1, leaves)


def covering_scores(
    tree: CutTree,
    masks: Iterable[Bool[np.ndarray, "y x"]],
    granularities: Sequence[Granularity] = CANDIDATE_GRANULARITIES,
) -> Float64[np.ndarray, " g"]:
    """Return the segmentation covering of the annotated regions by the segments at each granularity, in [0, 1].

    Covering as in Arbeláez et al. (2011), section 2.3.3, of the annotated regions alone: the best intersection over
    union of each region with a segment, weighted by the region's pixels. Unannotated pixels of a segment count against
    it, because masks are of whole objects: so too coarse a cut scores low however little of the image was annotated.
    Regions may overlap. Raises `SegmentationError` if no pixel is annotated.
    """
    overlaps = leaf_overlaps(tree, masks)
    regions = overlaps.sum(1)
    if not regions.any():
        raise SegmentationError("no pixel is annotated, so that no granularity fits best: annotate a region")
    pixels = np.column_stack([overlaps.T, tree.areas])  # of each leaf: in each region, and all
    scores = []
    for granularity in granularities:
        groups = tree.segment_of(granularity)
        sums = np.zeros((int(groups.max()) + 1, len(overlaps) + 1), np.int64)
        np.add.at(sums, groups, pixels)
        overlap, areas = sums[:, :-1].T, sums[:, -1]
        iou = overlap / (regions[:, None] + areas - overlap)
        scores.append(float(regions @ iou.max(1)) / int(regions.sum()))
    return np.array(scores)
