"""One place of an image made finer or coarser: sets of a cut tree's leaves, chosen by points or by regions."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int64

from walkcut.errors import GranularityError
from walkcut.hierarchy.cut_tree import CutTree
from walkcut.hierarchy.granularity import Granularity
from walkcut.hierarchy.hierarchy import Hierarchy

Leaves = Bool[np.ndarray, " k"]


def leaves_within(tree: CutTree, mask: Bool[np.ndarray, "y x"]) -> Leaves:
    """The leaves that lie in a mask with half of their pixels at least."""
    inside = np.bincount(tree.leaves[mask], minlength=tree.hierarchy.leaf_count)
    return (inside > 0) & (2 * inside >= tree.areas)


def segment_at(tree: CutTree, granularity: Granularity, leaf: int) -> Leaves:
    """The segment of this granularity that a leaf is part of."""
    groups = tree.segment_of(granularity)
    return groups == groups[leaf]


def select_leaves(tree: CutTree, granularity: Granularity, positive: Sequence[int], negative: Sequence[int]) -> Leaves:
    """The segments of the `positive` leaves, without what holds `negative` ones.

    Of a segment that holds both, the largest parts of the tree are taken that hold wanted leaves alone; a leaf that is
    both is not taken.
    """
    above, groups = tree.hierarchy.parents(), tree.segment_of(granularity)
    outside = tree.hierarchy.subtree_sums(np.bincount(np.array(negative, np.int64), minlength=len(groups)))
    chosen = np.zeros(len(groups), np.bool_)
    for leaf in positive:
        if not outside[leaf]:
            within = tree.hierarchy.subtree_sums((groups != groups[leaf]).astype(np.int64)) + outside
            chosen |= tree.hierarchy.leaves_under(_highest_ancestor(leaf, above, within))
    return chosen


def split(hierarchy: Hierarchy, region: Leaves, areas: Int64[np.ndarray, " k"], least: float) -> tuple[Leaves, Leaves]:
    """A region's leaves in two, smaller part first, where the tree parts them first into `least` pixels at least.

    `areas` holds each leaf's pixels; smaller splinters stay with the larger part. Raises `GranularityError` where the
    region cannot be cut.
    """
    core = region
    while True:
        sizes = hierarchy.subtree_sums(areas * core)
        node = int(np.argmax(sizes == sizes[-1]))  # the lowest that holds all of it
        if node < hierarchy.leaf_count:
            raise GranularityError("this place cannot be cut any finer")
        smaller, larger = sorted(
            hierarchy.merges[node - hierarchy.leaf_count].tolist(), key=lambda half: int(sizes[half])
        )
        if sizes[smaller] >= least:
            part = region & hierarchy.leaves_under(smaller)
            return part, region & ~part
        core = core & hierarchy.leaves_under(larger)


def enclosing_subtree(hierarchy: Hierarchy, region: Leaves, areas: Int64[np.ndarray, " k"], least: float) -> Leaves:
    """The smallest part of the tree that holds a region's leaves and `least` pixels more.

    Raises `GranularityError` where there is none, since the region is the whole image.
    """
    held, size = hierarchy.subtree_sums(areas * region), hierarchy.subtree_sums(areas)
    larger = (held == held[-1]) & (size > held) & (size >= held + least)
    if not larger.any():
        raise GranularityError("this region cannot be made any coarser")
    return region | hierarchy.leaves_under(int(np.argmax(larger)))


def _highest_ancestor(node: int, above: Int64[np.ndarray, " n"], negative: Int64[np.ndarray, " n"]) -> int:
    """The highest node over this one that holds nothing unwanted."""
    while above[node] != node and not negative[above[node]]:
        node = int(above[node])
    return node
