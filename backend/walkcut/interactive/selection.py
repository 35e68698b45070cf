"""Sets of a cut tree's leaves: chosen by points or regions, split and enlarged along the tree."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool

from walkcut.errors import GranularityError
from walkcut.hierarchy.cut_tree import CutTree
from walkcut.hierarchy.granularity import Granularity

Leaves = Bool[np.ndarray, " k"]
Pixel = tuple[int, int]  # row and column


def select_mask(
    tree: CutTree, granularity: Granularity, positive: Sequence[Pixel], negative: Sequence[Pixel]
) -> Bool[np.ndarray, "y x"]:
    """Return the object of positive and negative clicks: the leaves of `select_leaves`."""
    leaves = [[int(tree.leaves[pixel]) for pixel in pixels] for pixels in (positive, negative)]
    return tree.at_pixels(select_leaves(tree, granularity, *leaves))


def leaves_within(tree: CutTree, mask: Bool[np.ndarray, "y x"]) -> Leaves:
    """Return the leaves with at least half of their pixels in a mask."""
    inside = np.bincount(tree.leaves[mask], minlength=tree.hierarchy.leaf_count)
    return (inside > 0) & (2 * inside >= tree.areas)


def select_leaves(tree: CutTree, granularity: Granularity, positive: Sequence[int], negative: Sequence[int]) -> Leaves:
    """Return the segments of the `positive` leaves without the parts that hold `negative` leaves.

    Of a segment that holds both, the largest subtrees with a positive and no negative leaf are taken. A leaf that is
    both counts as negative.
    """
    parents, groups = tree.hierarchy.parents(), tree.segment_of(granularity)
    excluded = tree.hierarchy.subtree_sums(np.bincount(np.array(negative, np.int64), minlength=len(groups)))
    selected = np.zeros(len(groups), np.bool_)
    for leaf in positive:
        if not excluded[leaf]:
            outside = tree.hierarchy.subtree_sums((groups != groups[leaf]).astype(np.int64)) + excluded
            node = leaf
            while parents[node] != node and not outside[parents[node]]:
                node = int(parents[node])
            selected |= tree.hierarchy.leaves_under(node)
    return selected


def split_leaves(tree: CutTree, region: Leaves, min_pixels: float) -> tuple[Leaves, Leaves]:
    """Split a region at the topmost merge whose two parts in it have `min_pixels` each; the smaller part first.

    Smaller parts above that merge stay with the larger one. Raises `GranularityError` where no merge qualifies.
    """
    hierarchy, core = tree.hierarchy, region
    while True:
        sizes = hierarchy.subtree_sums(tree.areas * core)
        node = int(np.argmax(sizes == sizes[-1]))  # the lowest that holds the whole core
        if node < hierarchy.leaf_count:
            raise GranularityError("this place cannot be cut any finer")
        halves: list[int] = hierarchy.merges[node - hierarchy.leaf_count].tolist()
        smaller, larger = sorted(halves, key=lambda half: int(sizes[half]))
        if sizes[smaller] >= min_pixels:
            part = region & hierarchy.leaves_under(smaller)
            return part, region & ~part
        core = core & hierarchy.leaves_under(larger)


def enclosing_subtree(tree: CutTree, region: Leaves, min_pixels: float) -> Leaves:
    """Return the region united with the smallest subtree that holds it and at least `min_pixels` more.

    Raises `GranularityError` where there is none, as for the whole image.
    """
    held, size = tree.hierarchy.subtree_sums(tree.areas * region), tree.hierarchy.subtree_sums(tree.areas)
    larger = (held == held[-1]) & (size > held) & (size >= held + min_pixels)
    if not larger.any():
        raise GranularityError("this region cannot be made any coarser")
    return region | tree.hierarchy.leaves_under(int(np.argmax(larger)))
