"""Oracle merge: each segment becomes part of the annotated region that it overlaps most (DWC supplement A)."""

import numpy as np
from jaxtyping import Int64, Integer, UInt16
from scipy.sparse import csr_array

from walkcut.errors import SegmentationError
from walkcut.hierarchy.adjacency import label_adjacency
from walkcut.hierarchy.cut_tree import CutTree
from walkcut.hierarchy.granularity import Granularity
from walkcut.hierarchy.hierarchy import Hierarchy

_MAX_NUMBER = 65535  # of a segment or a region: results are 16-bit
_INCIDENTAL = 0.01  # an overlap of a smaller fraction of both segment and region is an inexact border


def oracle_merge(
    segments: Integer[np.ndarray, "y x"], annotation: Integer[np.ndarray, "h w"], *, min_overlap: float = 0.0
) -> UInt16[np.ndarray, "y x"]:
    """Return for each pixel the annotated region that its segment is merged into; 0 for unannotated segments.

    `segments` are numbered from 0. `annotation` holds 0 for unannotated pixels and numbers up to 65535 for regions,
    drawn as full masks or as a few strokes. Merges and raises as `majority_region`.

    >>> segments = np.array([[0, 0, 0, 1, 1, 2]])
    >>> strokes = np.array([[0, 7, 0, 0, 4, 0]])
    >>> oracle_merge(segments, strokes)
    array([[7, 7, 7, 4, 4, 0]], dtype=uint16)
    """
    return majority_region(segments, annotation, min_overlap=min_overlap).astype(np.uint16)[segments]


def oracle_merge_tree(
    tree: CutTree,
    annotation: Integer[np.ndarray, "h w"],
    *,
    granularity: Granularity | None = None,
    min_overlap: float = 0.0,
) -> UInt16[np.ndarray, "y x"]:
    """Merge as `oracle_merge`, and give unannotated segments the region that is nearest in the tree.

    The segments are the tree's leaves, or those at a `granularity`; see `propagate_regions`. Raises `SegmentationError`
    as `majority_region`, and if no segment overlaps a region by `min_overlap`.
    """
    segments, hierarchy = tree_segments(tree, granularity)
    regions = majority_region(segments, annotation, min_overlap=min_overlap)
    if not regions.any():
        raise SegmentationError(f"no region covers a fraction {min_overlap:g} of a segment: lower the minimal overlap")
    return propagate_regions(segments, hierarchy, regions).astype(np.uint16)[segments]


def tree_segments(tree: CutTree, granularity: Granularity | None) -> tuple[Int64[np.ndarray, "y x"], Hierarchy]:
    """Return the segments of a tree at a granularity, or its leaves, and the hierarchy over them."""
    groups = np.arange(tree.hierarchy.leaf_count) if granularity is None else tree.segment_of(granularity)
    _, representatives = np.unique(groups, return_index=True)
    return groups[tree.leaves], tree.hierarchy.pruned(representatives)


def majority_region(
    segments: Integer[np.ndarray, "y x"], annotation: Integer[np.ndarray, "h w"], *, min_overlap: float = 0.0
) -> Int64[np.ndarray, " k"]:
    """Return for each segment the annotated region that it overlaps most, 0 for none (DWC supplement A).

    Overlaps below `min_overlap`, a fraction of the segment in [0, 1], are ignored. So are those below 1 % of both the
    segment and the region: a mask with an inexact border takes no neighbours, but a click of one pixel counts. Of equal
    overlaps the lowest number wins. Raises `SegmentationError` for unusable input and for an empty annotation.
    """
    _check(segments, annotation, min_overlap)
    labels, numbers = segments.ravel().astype(np.int64), annotation.ravel().astype(np.int64)
    pairs, overlap = np.unique((labels * (_MAX_NUMBER + 1) + numbers)[numbers > 0], return_counts=True)
    segment, region = np.divmod(pairs, _MAX_NUMBER + 1)
    areas = np.bincount(labels)
    of_segment, of_region = overlap / areas[segment], overlap / np.bincount(numbers)[region]
    counts = (of_segment >= min_overlap) & ((of_segment >= _INCIDENTAL) | (of_region >= _INCIDENTAL))
    best_last = np.lexsort((-region, np.where(counts, overlap, 0)))
    regions = np.zeros(len(areas), np.int64)
    regions[segment[best_last]] = np.where(counts, region, 0)[best_last]
    return regions


def propagate_regions(
    segments: Int64[np.ndarray, "y x"], hierarchy: Hierarchy, regions: Int64[np.ndarray, " k"]
) -> Int64[np.ndarray, " k"]:
    """Return the regions of the segments (leaves of the hierarchy), with each 0 replaced by the nearest in the tree.

    From the leaves up, a node without a region takes one from its sibling as soon as that has any: the region with the
    longest common border, or without a border the largest region there. Ties go to the lower number. If no leaf has a
    region, all stay 0. Linear in merges and borders, except for siblings without a border.
    """
    numbers, rank = np.unique(regions, return_inverse=True)
    begin, end = _spans(hierarchy)
    position = begin[: hierarchy.leaf_count]
    order = np.argsort(position)
    region, areas = rank[order], np.bincount(segments.ravel(), minlength=hierarchy.leaf_count)[order]
    adjacency = label_adjacency(position[segments])
    pairs = np.concatenate([adjacency.pairs, adjacency.pairs[:, ::-1]])
    borders = csr_array((np.tile(adjacency.lengths, 2), pairs.T), shape=(len(order), len(order)))
    known = np.pad(regions > 0, (0, len(hierarchy.merges)))
    for node, (a, b) in enumerate(hierarchy.merges, hierarchy.leaf_count):
        known[node] = known[a] | known[b]
        if known[a] != known[b]:
            bare, sibling = (slice(begin[n], end[n]) for n in ((b, a) if known[a] else (a, b)))
            border = borders[bare, sibling]
            votes = (region[sibling][border.indices], border.data) if border.nnz else (region[sibling], areas[sibling])
            region[bare] = np.bincount(*votes).argmax()
    return numbers[region[position]]


def _spans(hierarchy: Hierarchy) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
    """Return for each node where its leaves begin and end in the tree's order of leaves."""
    size = hierarchy.subtree_sums(np.ones(hierarchy.leaf_count, np.int64))
    begin = np.zeros_like(size)
    for node, (a, b) in reversed([*enumerate(hierarchy.merges, hierarchy.leaf_count)]):
        begin[a], begin[b] = begin[node], begin[node] + size[a]
    return begin, begin + size


def _check(segments: Integer[np.ndarray, "y x"], annotation: Integer[np.ndarray, "h w"], min_overlap: float) -> None:
    if segments.shape != annotation.shape:
        (height, width), (h, w) = segments.shape, annotation.shape
        raise SegmentationError(
            f"an annotation of {w}×{h} pixels does not fit segments of {width}×{height}: annotate the image in its "
            "own size"
        )
    for name, numbers in (("segments", segments), ("annotation", annotation)):
        low, high = (int(bound) for bound in (numbers.min(initial=0), numbers.max(initial=0)))
        if low < 0 or high > _MAX_NUMBER:
            raise SegmentationError(
                f"number {low if low < 0 else high} in the {name}: numbers go from 0 to {_MAX_NUMBER}, renumber them"
            )
    if not 0 <= min_overlap <= 1:
        raise SegmentationError(f"a minimal overlap of {min_overlap:g} is out of range: it must be from 0 to 1")
    if not annotation.any():
        raise SegmentationError("nothing is annotated, all numbers are 0: mark each region with at least one pixel")
