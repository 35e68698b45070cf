from collections.abc import Sequence
from itertools import product
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from walkcut import oracle_merge, oracle_merge_tree
from walkcut.errors import SegmentationError
from walkcut.hierarchy.cut_tree import CutTree
from walkcut.hierarchy.granularity import Granularity, Level, Segments
from walkcut.hierarchy.hierarchy import Hierarchy
from walkcut.learning.oracle_merge import majority_region, propagate_regions, tree_segments

# Leaves 0-3 from left to right, two pixels wide; 0 and 1 join, 2 and 3 join, then all.
ROW = CutTree(
    np.array([[0, 0, 1, 1, 2, 2, 3, 3]], np.uint16),
    Hierarchy(np.array([[0, 1], [2, 3], [4, 5]]), np.array([0.9, 0.5, 0.1]), np.array([False, False, True])),
    {Level.COARSE: 1, Level.MEDIUM: 2, Level.FINE: 3},
)


def row(*numbers: int) -> np.ndarray:
    return np.array([numbers])


def chain(leaves: int) -> Hierarchy:
    """Leaf 1 joins leaf 0, then leaf 2 joins these, and so on."""
    merges = [[0, 1], *([leaves + row, row + 2] for row in range(leaves - 2))]
    return Hierarchy(np.array(merges[: leaves - 1]).reshape(-1, 2), np.zeros(leaves - 1), np.zeros(leaves - 1, bool))


def small_arrays(highest: int, *, lowest: int = 0) -> st.SearchStrategy[np.ndarray]:
    return arrays(np.int64, (4, 5), elements=st.integers(lowest, highest))


def test_each_segment_goes_to_the_region_with_which_it_overlaps_most() -> None:
    segments, annotation = row(0, 0, 0, 1, 1, 1, 2), row(7, 7, 3, 3, 3, 0, 0)
    for kind in (np.uint8, np.uint64, np.int32):
        merged = oracle_merge(segments.astype(kind), annotation.astype(kind))
        assert (merged.tolist(), merged.dtype) == ([[7, 7, 7, 3, 3, 3, 0]], np.uint16)


def test_equal_overlaps_go_to_the_lower_number() -> None:
    assert oracle_merge(row(0, 0, 0, 0), row(9, 0, 2, 2)).tolist() == [[2] * 4]
    assert oracle_merge(row(0, 0, 0, 0), row(9, 9, 2, 2)).tolist() == [[2] * 4]


def test_too_small_an_overlap_leaves_a_segment_alone() -> None:
    segments, annotation = np.repeat([[0, 1]], [20, 5], axis=1), np.repeat([[1, 0, 2]], [11, 9, 5], axis=1)
    assert majority_region(segments, annotation, min_overlap=0.55).tolist() == [1, 2]
    assert majority_region(segments, annotation, min_overlap=0.56).tolist() == [0, 2]


def test_an_inexact_border_takes_no_neighbour_but_a_click_does() -> None:
    segments = np.repeat([[0, 1]], 1000, axis=1)
    spilt = (np.arange(2000) < 1009).astype(np.int64)[None]
    assert majority_region(segments, spilt).tolist() == [1, 0]
    click = np.zeros_like(segments)
    click[0, 1500] = 2
    assert majority_region(segments, click).tolist() == [0, 2]
    assert majority_region(segments, np.where(click, 2, spilt)).tolist() == [1, 2]


def test_a_full_annotation_made_of_segments_is_restored() -> None:
    segments = np.arange(12).reshape(3, 4) // 2
    annotation = np.array([65535, 4, 65535, 1, 4, 4])[segments]
    assert oracle_merge(segments, annotation).tolist() == annotation.tolist()


@given(small_arrays(3), small_arrays(3, lowest=1))
def test_no_other_assignment_of_segments_is_more_accurate(segments: np.ndarray, annotation: np.ndarray) -> None:
    merged = (oracle_merge(segments, annotation) == annotation).sum()
    assert merged == max((np.array(choice)[segments] == annotation).sum() for choice in product((1, 2, 3), repeat=4))


@given(small_arrays(4), small_arrays(3), st.permutations([1, 5, 900]))
def test_the_order_of_numbers_decides_only_ties(segments: np.ndarray, annotation: np.ndarray, names: list[int]) -> None:
    annotation[0] = 1
    names = [0, *names]
    merged, renamed = oracle_merge(segments, annotation), oracle_merge(segments, np.array(names)[annotation])
    for segment in np.unique(segments):
        inside = segments == segment
        overlaps = np.sort(np.bincount(annotation[inside], minlength=4)[1:])
        if not overlaps.any() or overlaps[-1] > overlaps[-2]:
            assert renamed[inside].tolist() == np.array(names)[merged[inside]].tolist()


@pytest.mark.parametrize(
    ("annotation", "merged"),
    [
        ((1, 0, 0, 0, 0, 0, 0, 0), (1, 1, 1, 1, 1, 1, 1, 1)),
        ((1, 0, 0, 0, 0, 0, 2, 0), (1, 1, 1, 1, 2, 2, 2, 2)),
        ((1, 0, 2, 0, 0, 0, 0, 0), (1, 1, 2, 2, 2, 2, 2, 2)),  # the border with 2 is the longer one
        ((0, 0, 0, 0, 3, 3, 2, 2), (3, 3, 3, 3, 3, 3, 2, 2)),
        ((5, 0, 5, 0, 4, 0, 9, 0), (5, 5, 5, 5, 4, 4, 9, 9)),
    ],
)
def test_unannotated_segments_join_the_nearest_region_in_the_tree(
    annotation: Sequence[int], merged: Sequence[int]
) -> None:
    assert oracle_merge_tree(ROW, row(*annotation)).tolist() == [list(merged)]


@pytest.mark.parametrize(
    ("granularity", "merged"),
    [(None, [1, 1, 2, 2, 2, 2, 2, 2]), (Level.FINE, [1, 1, 1, 1, 1, 1, 1, 1]), (Segments(1), [1] * 8)],
)
def test_segments_may_be_of_any_granularity(granularity: Granularity | None, merged: list[int]) -> None:
    assert oracle_merge_tree(ROW, row(1, 0, 2, 0, 0, 0, 0, 0), granularity=granularity).tolist() == [merged]


def test_the_segments_of_a_rule_that_cuts_only_here_and_there_have_a_hierarchy_too() -> None:
    uneven = CutTree(
        ROW.leaves, Hierarchy(ROW.hierarchy.merges, ROW.hierarchy.costs, np.array([True, False, True])), ROW.levels
    )
    segments, hierarchy = tree_segments(uneven, Level.AUTO)
    assert segments.tolist() == [[0, 0, 1, 1, 2, 2, 2, 2]]
    assert hierarchy.merges.tolist() == [[0, 1], [3, 2]]


def test_without_a_border_the_largest_region_of_the_sibling_counts() -> None:
    segments = np.array([[0, 1, 1, 3, 2]])  # 2 joins 0 and 1 before 3, but lies beyond it
    regions = np.array([5, 4, 0, 4])
    assert propagate_regions(segments, chain(4), regions).tolist() == [5, 4, 4, 4]
    assert propagate_regions(np.array([[0, 0, 1, 3, 2]]), chain(4), regions).tolist() == [5, 4, 5, 4]


def test_a_longer_border_counts_before_a_larger_area() -> None:
    segments = np.array([[0, 0, 0, 2], [0, 0, 1, 2], [0, 0, 1, 2]])
    assert propagate_regions(segments, chain(3), np.array([1, 2, 0])).tolist() == [1, 2, 2]


def slow_nearest(segments: np.ndarray, hierarchy: Hierarchy, regions: np.ndarray) -> list[int]:
    """Return the same by the definition, one leaf at a time."""
    members = [{leaf} for leaf in range(hierarchy.leaf_count)]
    result = regions.tolist()
    for a, b in hierarchy.merges:
        for bare, sibling in ((members[a], members[b]), (members[b], members[a])):
            if not any(result[leaf] for leaf in bare) and any(result[leaf] for leaf in sibling):
                votes = dict.fromkeys(sorted({result[leaf] for leaf in sibling}), 0)
                areas = votes.copy()
                for leaf in sibling:
                    areas[result[leaf]] += int((segments == leaf).sum())
                for first, second in ((segments[1:], segments[:-1]), (segments[:, 1:], segments[:, :-1])):
                    for p, q in [
                        *zip(first.flat, second.flat, strict=True),
                        *zip(second.flat, first.flat, strict=True),
                    ]:
                        if p in bare and q in sibling:
                            votes[result[q]] += 1
                chosen = votes if any(votes.values()) else areas
                result = [
                    max(chosen, key=chosen.__getitem__) if leaf in bare else result[leaf] for leaf in range(len(result))
                ]
        members.append(members[a] | members[b])
    return result


@settings(max_examples=200)
@given(small_arrays(5), st.lists(st.integers(0, 3), min_size=6, max_size=6), st.randoms())
def test_the_result_is_that_of_the_definition(segments: np.ndarray, regions: list[int], random: Random) -> None:
    segments.flat[:6] = np.arange(6)
    nodes, merges = list(range(6)), []
    draw = np.random.default_rng(random.randrange(2**32))
    for node in range(6, 11):
        pair = draw.choice(len(nodes), 2, replace=False)
        merges.append([nodes[index] for index in pair])
        nodes = [*(kept for index, kept in enumerate(nodes) if index not in pair), node]
    hierarchy = Hierarchy(np.array(merges), np.zeros(5), np.zeros(5, bool))
    fast = propagate_regions(segments, hierarchy, np.array(regions)).tolist()
    assert fast == slow_nearest(segments, hierarchy, np.array(regions))
    assert all(new == old for new, old in zip(fast, regions, strict=True) if old)
    assert all(fast) == any(regions)


@pytest.mark.parametrize(
    ("segments", "annotation", "min_overlap", "message"),
    [
        (row(0, 1), row(0, 1, 1), 0, "annotation of 3×1 pixels does not fit segments of 2×1: annotate the image in"),
        (row(0, -1), row(0, 1), 0, "number -1 in the segments: numbers go from 0 to 65535, renumber them"),
        (row(0, 70000), row(0, 1), 0, "number 70000 in the segments: numbers"),
        (row(0, 1), row(0, -3), 0, "number -3 in the annotation: numbers"),
        (row(0, 1), row(0, 65536), 0, "number 65536 in the annotation: numbers"),
        (row(0, 1), row(0, 1), 1.5, "minimal overlap of 1.5 is out of range: it must be from 0 to 1"),
        (row(0, 1), row(0, 1), float("nan"), "minimal overlap of nan is out of range"),
        (row(0, 1), row(0, 0), 0, "nothing is annotated, all numbers are 0: mark each region with at least one pixel"),
    ],
)
def test_unusable_input_is_refused_with_the_remedy(
    segments: np.ndarray, annotation: np.ndarray, min_overlap: float, message: str
) -> None:
    with pytest.raises(SegmentationError, match=message):
        oracle_merge(segments, annotation, min_overlap=min_overlap)


def test_a_tree_needs_one_segment_that_is_annotated_enough() -> None:
    with pytest.raises(SegmentationError, match=r"no region covers a fraction 0\.6 of a segment: lower the minimal"):
        oracle_merge_tree(ROW, row(1, 0, 0, 0, 0, 0, 0, 2), min_overlap=0.6)
