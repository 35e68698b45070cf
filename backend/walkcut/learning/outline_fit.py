"""Boxes and ellipses as the segments inside: an outline tells where an object is, and the cut tree what it covers."""

from dataclasses import replace
from typing import Final

import numpy as np
from jaxtyping import Bool, Float64, Int64
from scipy.ndimage import find_objects

from walkcut.hierarchy.cut_tree import CutTree
from walkcut.labelstudio.predictions import Region

OUTLINES: Final = frozenset({"rectangle", "ellipse"})
_MIN_FIT: Final = 0.7  # intersection over union; a worse fit is no single segment
_EQUAL_FIT: Final = 0.02

Mask = Bool[np.ndarray, "y x"]


def fit_outline(region: Region, tree: CutTree) -> Region:
    """Return a region drawn as a box or an ellipse with the mask of the segment that fits it best; others as they are.

    Where none fits, these are the leaves with at least half of their pixels inside, or all pixels if there are none.
    """
    if region.shape not in OUTLINES:
        return region
    outline = region.mask
    inside = np.bincount(tree.leaves[outline], minlength=tree.hierarchy.leaf_count)
    fits = _box_fits(tree, outline) if region.shape == "rectangle" else _mask_fits(tree, inside)
    if fits.max() >= _MIN_FIT:
        best = int(np.flatnonzero(fits >= fits.max() - _EQUAL_FIT)[-1])  # of several, that which fills the outline most
        leaves = tree.hierarchy.leaves_under(best)
    else:
        leaves = (inside > 0) & (2 * inside >= tree.areas)
    mask = leaves[tree.leaves]
    mask = mask & outline if region.shape == "rectangle" else mask
    return replace(region, mask=mask) if mask.any() else region


def _mask_fits(tree: CutTree, inside: Int64[np.ndarray, " k"]) -> Float64[np.ndarray, " n"]:
    """Return the intersection over union of each node of the tree and an outline that holds so much of each leaf."""
    shared, sizes = tree.hierarchy.subtree_sums(inside), tree.hierarchy.subtree_sums(tree.areas)
    return shared / (sizes + inside.sum() - shared)


def _box_fits(tree: CutTree, outline: Mask) -> Float64[np.ndarray, " n"]:
    """Return the intersection over union of the bounding boxes of each node of the tree and of an outline."""
    top, left, bottom, right = _node_boxes(tree).T
    (rows, columns), *_ = find_objects(outline.view(np.uint8))
    height = np.minimum(bottom, rows.stop) - np.maximum(top, rows.start)
    width = np.minimum(right, columns.stop) - np.maximum(left, columns.start)
    shared = height.clip(0) * width.clip(0)
    size = (rows.stop - rows.start) * (columns.stop - columns.start)
    return shared / ((bottom - top) * (right - left) + size - shared)


def _node_boxes(tree: CutTree) -> Int64[np.ndarray, "n 4"]:
    """Return the bounding box (top, left, bottom, right) of each node, the leaves first, then the merges."""
    boxes = [
        (rows.start, columns.start, rows.stop, columns.stop)
        for rows, columns in find_objects(tree.leaves.astype(np.int32) + 1)
    ]
    for first, second in tree.hierarchy.merges.tolist():
        one, other = boxes[first], boxes[second]
        boxes.append((min(one[0], other[0]), min(one[1], other[1]), max(one[2], other[2]), max(one[3], other[3])))
    return np.array(boxes)
