"""Oracle merge: an annotation folds the segments that it touches into its regions (DWC supplement A)."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64, Integer, UInt16

from walkcut.errors import SegmentationError
from walkcut.hierarchy.adjacency import label_adjacency
from walkcut.hierarchy.cut_tree import CutTree
from walkcut.hierarchy.granularity import Granularity
from walkcut.hierarchy.hierarchy import Hierarchy

_MOST = 65535  # the largest number of a segment or a region: results are 16-bit
_INCIDENTAL = 0.01  # a smaller share of both segment and region is a border that misfits


def oracle_merge(
    segments: Integer[np.ndarray, "y x"], annotation: Integer[np.ndarray, "h w"], *, min_overlap: float = 0.0
) -> UInt16[np.ndarray, "y x"]:
    """The annotated region that each pixel's segment is folded into; 0 where nobody annotated the segment.

    `segments` are numbered from 0; `annotation` holds 0 for not annotated and any numbers up to 65535 for regions, as
    full masks or as a few strokes. Which region takes a segment: see `majority_region`, which raises as this does.
    """
    return majority_region(segments, annotation, min_overlap=min_overlap).astype(np.uint16)[segments]


def oracle_merge_tree(
    tree: CutTree,
    annotation: Integer[np.ndarray, "h w"],
    *,
    granularity: Granularity | None = None,
    min_overlap: float = 0.0,
) -> UInt16[np.ndarray, "y x"]:
    """As `oracle_merge`, but segments that nobody annotated join the annotated region nearest to them by the tree.

    The segments are the tree's leaves, or those at a `granularity`. See `propagate_regions`. Raises `SegmentationError`
    as `majority_region` does, and where no segment overlaps a region by `min_overlap`.
    """
    segments, hierarchy = tree_segments(tree, granularity)
    regions = majority_region(segments, annotation, min_overlap=min_overlap)
    if not regions.any():
        raise SegmentationError(f"no segment is annotated to a share of {min_overlap:g}: lower the minimal overlap")
    return propagate_regions(segments, hierarchy, regions).astype(np.uint16)[segments]


def tree_segments(tree: CutTree, granularity: Granularity | None) -> tuple[Int64[np.ndarray, "y x"], Hierarchy]:
    """The segments of a tree at a granularity, or its leaves, and the hierarchy over them."""
    groups = np.arange(tree.hierarchy.leaf_count) if granularity is None else tree.segment_of(granularity)
    _, spokesmen = np.unique(groups, return_index=True)
    return groups[tree.leaves], tree.hierarchy.pruned(spokesmen)


def majority_region(
    segments: Integer[np.ndarray, "y x"], annotation: Integer[np.ndarray, "h w"], *, min_overlap: float = 0.0
) -> Int64[np.ndarray, " k"]:
    """For each segment the annotated region with which it overlaps most, 0 for none: DWC supplement A.

    Overlaps below `min_overlap`, a share of the segment in [0, 1], count for nothing; so do those of less than 1 % of
    the segment and of the region, lest a mask with an inexact border capture its neighbours, while a click of one pixel
    counts. Of equal overlaps the lowest number wins. Raises `SegmentationError` for what cannot be used, and for an
    annotation without a region.
    """
    _check(segments, annotation, min_overlap)
    labels, marks = segments.ravel().astype(np.int64), annotation.ravel().astype(np.int64)
    codes, overlap = np.unique((labels * (_MOST + 1) + marks)[marks > 0], return_counts=True)
    segment, region = np.divmod(codes, _MOST + 1)
    areas = np.bincount(labels)
    share, share_of_region = overlap / areas[segment], overlap / np.bincount(marks)[region]
    counts = (share >= min_overlap) & ((share >= _INCIDENTAL) | (share_of_region >= _INCIDENTAL))
    best_last = np.lexsort((-region, np.where(counts, overlap, 0)))
    regions = np.zeros(len(areas), np.int64)
    regions[segment[best_last]] = np.where(counts, region, 0)[best_last]
    return regions


def propagate_regions(
    segments: Int64[np.ndarray, "y x"], hierarchy: Hierarchy, regions: Int64[np.ndarray, " k"]
) -> Int64[np.ndarray, " k"]:
    """For each segment, a leaf of the hierarchy, its own region, or where that is 0 the one nearest to it by the tree.

    From the leaves up, a node without a region joins its sibling as soon as that has one: of several the one with which
    it has the longest border, or if they have no border the one largest there. Ties go to the lower number. Without a
    region in the whole tree all stay 0. Linear in joints and borders, save for siblings without a border.
    """
    numbers, rank = np.unique(regions, return_inverse=True)
    begin, end = _spans(hierarchy)
    place = begin[: hierarchy.leaf_count]
    leaf = np.argsort(place)
    found, areas = rank[leaf], np.bincount(segments.ravel(), minlength=hierarchy.leaf_count)[leaf]
    borders = _Borders.of(place[segments], hierarchy.leaf_count)
    known = np.pad(regions > 0, (0, len(hierarchy.merges)))
    for node, (a, b) in enumerate(hierarchy.merges, hierarchy.leaf_count):
        known[node] = known[a] | known[b]
        if known[a] != known[b]:
            bare, sibling = (slice(begin[n], end[n]) for n in ((b, a) if known[a] else (a, b)))
            places, lengths = borders.between(bare, sibling)
            votes = (found[places], lengths) if len(places) else (found[sibling], areas[sibling])
            found[bare] = np.bincount(*votes).argmax()
    return numbers[found[place]]


@dataclass(frozen=True)
class _Borders:
    """The neighbours of each segment and the lengths of their borders in pixel sides; those of `i` at `start[i]`."""

    start: Int64[np.ndarray, " p"]
    neighbour: Int64[np.ndarray, " e"]
    length: Int64[np.ndarray, " e"]

    @classmethod
    def of(cls, segments: Int64[np.ndarray, "y x"], count: int) -> "_Borders":
        """Return the borders between `count` segments, in both directions."""
        adjacency = label_adjacency(segments)
        pairs = np.concatenate([adjacency.pairs, adjacency.pairs[:, ::-1]])
        order = np.lexsort((pairs[:, 1], pairs[:, 0]))
        first, second = pairs[order].T
        return cls(np.searchsorted(first, np.arange(count + 1)), second, np.tile(adjacency.lengths, 2)[order])

    def between(self, first: slice, second: slice) -> tuple[Int64[np.ndarray, " b"], Int64[np.ndarray, " b"]]:
        """Each border from a segment in one range to one in another: the latter, and the length."""
        edges = slice(self.start[first.start], self.start[first.stop])
        inside = (self.neighbour[edges] >= second.start) & (self.neighbour[edges] < second.stop)
        return self.neighbour[edges][inside], self.length[edges][inside]


def _spans(hierarchy: Hierarchy) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
    """For each node where its leaves begin and end when leaves stand in the tree's order."""
    size = hierarchy.subtree_sums(np.ones(hierarchy.leaf_count, np.int64))
    begin = np.zeros_like(size)
    for node, (a, b) in reversed([*enumerate(hierarchy.merges, hierarchy.leaf_count)]):
        begin[a], begin[b] = begin[node], begin[node] + size[a]
    return begin, begin + size


def _check(segments: Integer[np.ndarray, "y x"], annotation: Integer[np.ndarray, "h w"], min_overlap: float) -> None:
    """Raise `SegmentationError` for what no merge can be made of."""
    if segments.shape != annotation.shape:
        (height, width), (h, w) = segments.shape, annotation.shape
        raise SegmentationError(
            f"an annotation of {w}×{h} pixels does not fit segments of {width}×{height}: annotate the image in its "
            "own size"
        )
    for whose, numbers in (("segments", segments), ("annotation", annotation)):
        low, high = (int(bound) for bound in (numbers.min(initial=0), numbers.max(initial=0)))
        if low < 0 or high > _MOST:
            raise SegmentationError(
                f"number {low if low < 0 else high} in the {whose}: numbers go from 0 to {_MOST}, map them to those"
            )
    if not 0 <= min_overlap <= 1:
        raise SegmentationError(f"a minimal overlap of {min_overlap:g} is no share: choose one from 0 to 1")
    if not annotation.any():
        raise SegmentationError("nothing is annotated, all numbers are 0: mark each region by a pixel at least")
