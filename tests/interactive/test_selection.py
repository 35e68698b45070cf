from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from walkcut.errors import GranularityError
from walkcut.hierarchy.cut_tree import CutTree
from walkcut.hierarchy.granularity import Level, Segments
from walkcut.hierarchy.hierarchy import Hierarchy
from walkcut.interactive.selection import (
    _crop_around,
    enclosing_subtree,
    leaves_within,
    select_leaves,
    select_mask,
    split_leaves,
)
from walkcut.storage import Crop

# Leaves 0-3 of two pixels each, side by side; 0 and 1 join into 4, 2 and 3 into 5, these two into 6.
HIERARCHY = Hierarchy(np.array([[0, 1], [2, 3], [4, 5]]), np.array([0.9, 0.5, 0.1]), np.array([False, False, True]))
TREE = CutTree(
    np.array([[0, 0, 1, 1, 2, 2, 3, 3]], np.uint16),
    HIERARCHY,
    {Level.COARSE: 2, Level.MEDIUM: 3, Level.FINE: 4},
)
AREAS = TREE.areas
SMALL_LEAF = replace(TREE, leaves=np.array([[0, 1, 1, 2, 2, 3, 3]], np.uint16))


def leaves(*numbers: int) -> np.ndarray:
    return np.isin(np.arange(4), numbers)


def numbers(region: np.ndarray) -> list[int]:
    return np.flatnonzero(region).tolist()


def test_a_leaf_lies_in_a_mask_with_half_of_its_pixels() -> None:
    mask = np.array([[True, False, True, True, False, False, False, False]])
    assert AREAS.tolist() == [2, 2, 2, 2]
    assert numbers(leaves_within(TREE, mask)) == [0, 1]
    assert numbers(leaves_within(TREE, np.zeros((1, 8), bool))) == []
    larger = replace(TREE, leaves=np.array([[0, 0, 0, 1, 1, 2, 3, 3]], np.uint16))
    assert numbers(leaves_within(larger, np.array([[True, False, False, True, False, True, True, True]]))) == [1, 2, 3]


@pytest.mark.parametrize(
    ("granularity", "positive", "negative", "chosen"),
    [
        (Segments(2), [0], [], [0, 1]),
        (Segments(2), [0, 3], [], [0, 1, 2, 3]),
        (Segments(2), [0], [1], [0]),  # the segment's part without what was excluded
        (Segments(1), [0], [3], [0, 1]),
        (Segments(1), [0], [3, 1], [0]),
        (Segments(2), [0], [3], [0, 1]),  # elsewhere: nothing to exclude
        (Segments(4), [2], [2], []),
        (Segments(2), [], [1], []),
        (Level.AUTO, [2], [], [2, 3]),
    ],
)
def test_points_select_segments_without_what_is_excluded(
    granularity: Level | Segments, positive: list[int], negative: list[int], chosen: list[int]
) -> None:
    assert numbers(select_leaves(TREE, granularity, positive, negative)) == chosen


@given(st.lists(st.integers(0, 3)), st.lists(st.integers(0, 3)), st.integers(1, 5))
def test_no_selection_holds_what_was_excluded_or_goes_beyond_its_segments(
    positive: list[int], negative: list[int], count: int
) -> None:
    chosen = select_leaves(TREE, Segments(count), positive, negative)
    groups = TREE.segment_of(Segments(count))
    segments = [groups == groups[leaf] for leaf in positive]
    assert not chosen[negative].any()
    assert chosen[[leaf for leaf in positive if leaf not in negative]].all()
    assert not (chosen & ~np.any([leaves(), *segments], axis=0)).any()


def strip(*widths: int) -> np.ndarray:
    """Return leaves side by side, 60 pixels high."""
    return np.repeat(np.arange(len(widths), dtype=np.uint16), widths)[None].repeat(60, 0)


def test_a_part_that_holds_no_click_goes_with_what_it_looks_like() -> None:
    # 1 is between the clicks on 0 and 2, and joins neither before both of them have joined.
    hierarchy = Hierarchy(np.array([[0, 2], [1, 3]]), np.array([0.5, 0.1]), np.array([False, False]))
    levels = {Level.COARSE: 1, Level.MEDIUM: 2, Level.FINE: 3}
    for looks, chosen in (([9, 9, 1], [0, 1]), ([9, 1, 1], [0])):
        descriptors = np.array([[look, 10 - look] for look in looks], np.float16)
        tree = CutTree(strip(20, 20, 20), hierarchy, levels, (), descriptors)
        assert numbers(select_leaves(tree, Segments(1), [0], [2])) == chosen


def test_a_leaf_with_both_kinds_of_clicks_is_divided_by_the_tree_of_that_part() -> None:
    tree = replace(TREE, leaves=strip(50, 50, 50, 50))
    asked = []

    def crop_tree(crop: Crop) -> CutTree:
        asked.append(crop)
        return replace(TREE, leaves=strip(20, 20, 20, 22)[:, : crop[1].stop - crop[1].start])

    clicks = [(30, 60), (30, 10)], [(30, 90)]
    mask = select_mask(tree, Segments(4), *clicks, crop_tree)
    assert asked == [(slice(0, 60), slice(34, 116))]
    # Of the leaf in columns 50 to 99 that part is taken that lies in the crop's leaves 0 and 1, up to column 73.
    assert np.flatnonzero(mask[0]).tolist() == [*range(74)]
    assert (mask == mask[0]).all()


def test_where_nothing_divides_a_leaf_each_pixel_goes_with_the_nearest_click() -> None:
    tree = replace(TREE, leaves=strip(50, 50, 50, 50))

    def crop_tree(crop: Crop) -> CutTree:
        return replace(TREE, leaves=strip(1, 79, 1, 1))

    mask = select_mask(tree, Segments(4), [(30, 60)], [(30, 80)], crop_tree)
    assert np.flatnonzero(mask[0]).tolist() == [*range(50, 70)]
    assert not select_mask(tree, Segments(4), [(30, 60)], [(30, 60)], crop_tree).any()


def test_a_leaf_that_is_nearly_the_image_is_not_divided() -> None:
    tree = replace(TREE, leaves=strip(1, 1, 197, 1))
    mask = select_mask(tree, Segments(4), [(30, 60)], [(30, 90)], lambda crop: pytest.fail(f"asked for {crop}"))
    assert not mask.any()


@pytest.mark.parametrize("at", [0, 30, 95])
def test_crops_are_large_enough_to_be_segmented(at: int) -> None:
    inside = np.zeros((100, 120), np.bool_)
    inside[at : at + 4, at : at + 5] = True
    rows, columns = _crop_around(inside)
    assert inside[rows, columns].sum() == inside.sum()
    assert min(rows.stop - rows.start, columns.stop - columns.start) >= 16
    assert 0 <= rows.start < rows.stop <= 100


def test_a_region_is_split_where_the_tree_parts_it_first() -> None:
    assert [numbers(part) for part in split_leaves(TREE, leaves(0, 1, 2, 3), 1)] == [[0, 1], [2, 3]]
    assert [numbers(part) for part in split_leaves(TREE, leaves(2, 3), 1)] == [[2], [3]]
    assert [numbers(part) for part in split_leaves(TREE, leaves(0, 2, 3), 1)] == [[0], [2, 3]]


def test_small_parts_stay_with_the_larger_part() -> None:
    assert [numbers(part) for part in split_leaves(SMALL_LEAF, leaves(0, 2, 3), 2)] == [
        [2],
        [0, 3],
    ]


@pytest.mark.parametrize("region", [leaves(2), leaves(), leaves(0, 1)])
def test_a_region_without_two_large_parts_cannot_be_split(region: np.ndarray) -> None:
    with pytest.raises(GranularityError, match="cannot be cut any finer"):
        split_leaves(TREE, region, 3)


def test_a_region_grows_to_the_smallest_enclosing_subtree() -> None:
    assert numbers(enclosing_subtree(TREE, leaves(0), 1)) == [0, 1]
    assert numbers(enclosing_subtree(TREE, leaves(0, 1), 1)) == [0, 1, 2, 3]
    assert numbers(enclosing_subtree(TREE, leaves(1, 2), 1)) == [0, 1, 2, 3]
    assert numbers(enclosing_subtree(TREE, leaves(0), 3)) == [0, 1, 2, 3]  # two pixels are too few


def test_the_whole_image_has_no_enclosing_subtree() -> None:
    with pytest.raises(GranularityError, match="cannot be made any coarser"):
        enclosing_subtree(TREE, leaves(0, 1, 2, 3), 1)


@given(st.integers(0, 3))
def test_the_enclosing_subtree_undoes_a_split(leaf: int) -> None:
    parent = enclosing_subtree(TREE, leaves(leaf), 1)
    assert leaf in [numbers(part)[0] for part in split_leaves(TREE, parent, 1)]
