"""Sets of a cut tree's leaves: chosen by points or regions, split and enlarged along the tree."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Bool, Float64, Int64
from scipy.ndimage import distance_transform_edt

from walkcut.errors import GranularityError
from walkcut.hierarchy.cut_tree import CutTree
from walkcut.hierarchy.granularity import Granularity, Segments
from walkcut.interactive.leaf_walk import probability_to_meet
from walkcut.masks.bounds import bounding_box
from walkcut.storage import Crop

_MARGIN = 16  # pixels around a leaf that is divided, so that its border is inside
_MIN_CROP = 32  # pixels
_MAX_CROP = 0.8  # of the image: the tree of a larger part is hardly finer than that of the image

Leaves = Bool[np.ndarray, " k"]
Mask = Bool[np.ndarray, "y x"]
Pixel = tuple[int, int]  # row and column


def select_mask(
    tree: CutTree,
    granularity: Granularity,
    positive: Sequence[Pixel],
    negative: Sequence[Pixel],
    crop_tree: Callable[[Crop], CutTree],
) -> Mask:
    """Return the object of positive and negative clicks: the leaves of `select_leaves`.

    A leaf that holds both kinds is divided by the cut tree of that part of the image, which `crop_tree` returns.
    """
    leaves = _leaves_at(tree, positive), _leaves_at(tree, negative)
    mask = tree.at_pixels(select_leaves(tree, granularity, *leaves))
    for leaf in sorted({*leaves[0]} & {*leaves[1]}):
        inside = tree.leaves == leaf
        crop = _crop_around(inside)
        if inside[crop].size < _MAX_CROP * inside.size:
            part = _select_in_crop(crop_tree(crop), crop, positive, negative)
            mask[crop] = np.where(inside[crop], part, mask[crop])
    return mask


def _select_in_crop(tree: CutTree, crop: Crop, positive: Sequence[Pixel], negative: Sequence[Pixel]) -> Mask:
    """Return the object in a crop, given its tree and all clicks on the image: any leaf of it may be part of it.

    A leaf of the crop that holds both kinds has nothing more to divide it by: each pixel goes with the nearest click.
    """
    clicks = _within(crop, positive), _within(crop, negative)
    leaves = _leaves_at(tree, clicks[0]), _leaves_at(tree, clicks[1])
    mask = tree.at_pixels(select_leaves(tree, Segments(1), *leaves))
    contested = np.isin(tree.leaves, sorted({*leaves[0]} & {*leaves[1]}))
    if not contested.any():
        return mask
    to_positive, to_negative = (_distance_to(pixels, tree.size) for pixels in clicks)
    return np.where(contested, to_positive < to_negative, mask)


def _leaves_at(tree: CutTree, pixels: Sequence[Pixel]) -> list[int]:
    return [int(tree.leaves[pixel]) for pixel in pixels]


def _within(crop: Crop, pixels: Sequence[Pixel]) -> list[Pixel]:
    """Return the pixels in a crop, counted from its corner."""
    rows, columns = crop
    shifted = [(row - rows.start, column - columns.start) for row, column in pixels]
    height, width = rows.stop - rows.start, columns.stop - columns.start
    return [(row, column) for row, column in shifted if 0 <= row < height and 0 <= column < width]


def _distance_to(pixels: Sequence[Pixel], size: tuple[int, int]) -> Float64[np.ndarray, "y x"]:
    elsewhere = np.ones(size, np.bool_)
    elsewhere[tuple(zip(*pixels, strict=True))] = False
    return np.asarray(distance_transform_edt(elsewhere))


def _crop_around(inside: Mask) -> Crop:
    """Return the box of a mask with a margin, of at least 32×32 pixels where the image has as many."""
    rows, columns = bounding_box(inside)
    height, width = inside.shape
    return _with_margin(rows, height), _with_margin(columns, width)


def _with_margin(span: slice, length: int) -> slice:
    margin = max(_MARGIN, (_MIN_CROP - (span.stop - span.start) + 1) // 2)
    return slice(max(0, span.start - margin), min(length, span.stop + margin))


def leaves_within(tree: CutTree, mask: Bool[np.ndarray, "y x"]) -> Leaves:
    """Return the leaves with at least half of their pixels in a mask."""
    inside = np.bincount(tree.leaves[mask], minlength=tree.hierarchy.leaf_count)
    return (inside > 0) & (2 * inside >= tree.areas)


def select_leaves(tree: CutTree, granularity: Granularity, positive: Sequence[int], negative: Sequence[int]) -> Leaves:
    """Return the segments of the `positive` leaves without the parts that belong to `negative` leaves.

    Of a segment that holds both, the largest subtrees with leaves of one kind alone belong to that kind, and of the
    rest those leaves to the positive ones from which a random walk meets these first. A leaf that is both counts as
    negative.
    """
    groups = tree.segment_of(granularity)
    positive = [leaf for leaf in positive if leaf not in negative]
    selected = _subtrees(tree, groups, positive, negative)
    excluded = _subtrees(tree, groups, negative, positive) | ~np.isin(groups, groups[positive])
    if (selected | excluded).all():
        return selected
    return probability_to_meet(tree, selected, excluded) > 0.5


def _subtrees(tree: CutTree, groups: Int64[np.ndarray, " k"], wanted: Sequence[int], unwanted: Sequence[int]) -> Leaves:
    """Return the largest subtrees within segments that hold a `wanted` leaf and no `unwanted` one."""
    parents = tree.hierarchy.parents()
    others = tree.hierarchy.subtree_sums(np.bincount(np.array(unwanted, np.int64), minlength=len(groups)))
    subtrees = np.zeros(len(groups), np.bool_)
    for leaf in wanted:
        if not others[leaf]:
            outside = tree.hierarchy.subtree_sums((groups != groups[leaf]).astype(np.int64)) + others
            node = leaf
            while parents[node] != node and not outside[parents[node]]:
                node = int(parents[node])
            subtrees |= tree.hierarchy.leaves_under(node)
    return subtrees


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
