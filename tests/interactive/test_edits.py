from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from walkcut.errors import GranularityError
from walkcut.hierarchy.cut_tree import CutTree
from walkcut.hierarchy.granularity import Level, Segments
from walkcut.hierarchy.hierarchy import Hierarchy
from walkcut.interactive.edits import (
    EditState,
    merge_regions,
    merge_with_parent,
    resegment_all,
    resegment_box,
    select,
    split_region,
)
from walkcut.labelstudio import Point, Region

# Leaves 0-3 of two pixels each, side by side; 0 and 1 join into 4, 2 and 3 into 5, these two into 6.
HIERARCHY = Hierarchy(np.array([[0, 1], [2, 3], [4, 5]]), np.array([0.9, 0.5, 0.1]), np.array([False, False, True]))
LEVELS = {Level.COARSE: 2, Level.MEDIUM: 3, Level.FINE: 4}
TREE = CutTree(np.array([[0, 0, 1, 1, 2, 2, 3, 3]], np.uint16), HIERARCHY, LEVELS)


def region(name: str, pixels: str, label: str = "A") -> Region:
    """A region by its pixels, such as `##......`."""
    return Region(np.array([[pixel == "#" for pixel in pixels]]), label, 1.0, id=name)


def state(*regions: Region, segments: int = 2, min_pixels: float = 1) -> EditState:
    by_id = {region.id: region for region in regions}
    return EditState(TREE, Segments(segments), by_id, min_pixels, ("A", "B"), lambda words: f"<{words}>")


def at(*pixels: int, is_positive: bool = True) -> list[Point]:
    return [Point(f"p{pixel}", "", (pixel + 0.5) / 8, 0.5, is_positive) for pixel in pixels]


def drawn(after: EditState) -> dict[str, str]:
    """Each region's label and pixels, by its id."""
    shown = after.regions.items()
    return {name: f"{each.label} {''.join('.#'[int(pixel)] for pixel in each.mask[0])}" for name, each in shown}


def test_a_click_selects_the_segment_there() -> None:
    assert drawn(select(state(), at(5))) == {"<select p5>": "A ....####"}
    assert drawn(select(state(segments=4), at(5))) == {"<select p5>": "A ....##.."}


def test_more_clicks_extend_the_selection_and_others_exclude() -> None:
    assert drawn(select(state(segments=4), at(5, 0))) == {"<select p5>": "A ##..##.."}
    points = [*at(5), *at(7, is_positive=False)]
    assert drawn(select(state(), points)) == {"<select p5>": "A ....##.."}


def test_a_selection_takes_the_label_that_was_asked_for_or_one_unlike_its_neighbours() -> None:
    assert drawn(select(state(), at(0), label="Car")) == {"<select p0>": "Car ####...."}
    beside = region("r", "....####", "A")
    assert drawn(select(state(beside), at(0)))["<select p0>"] == "B ####...."


def test_clicks_that_select_nothing_say_so() -> None:
    with pytest.raises(GranularityError, match="click without Alt"):
        select(state(), at(3, is_positive=False))


def test_finer_cuts_the_region_in_two_and_the_part_under_the_click_keeps_its_name() -> None:
    assert drawn(split_region(state(region("r", "####....")), *at(3))) == {"r": "A ..##....", "<r 0>": "B ##......"}
    assert drawn(split_region(state(region("r", "####....")), *at(0))) == {"r": "A ##......", "<r 2>": "B ..##...."}


def test_finer_keeps_a_label_that_says_something() -> None:
    assert drawn(split_region(state(region("r", "####....", "Car")), *at(0))) == {
        "r": "Car ##......",
        "<r 2>": "Car ..##....",
    }


def test_finer_cuts_what_an_annotator_has_drawn_within_its_own_border() -> None:
    assert drawn(split_region(state(region("r", ".###....")), *at(3))) == {"r": "A ..##....", "<r 1>": "B .#......"}


def test_finer_where_there_is_no_region_cuts_the_segment() -> None:
    assert drawn(split_region(state(region("r", "......##")), *at(0))) == {
        "r": "A ......##",
        "<segment 0>": "A ##......",
        "<<segment 0> 2>": "B ..##....",
    }


def test_of_regions_on_top_of_each_other_the_uppermost_is_meant() -> None:
    before = state(region("below", "########"), region("above", "####...."))
    assert drawn(split_region(before, *at(0))) == {
        "below": "A ########",
        "above": "A ##......",
        "<above 2>": "B ..##....",
    }


def test_finer_leaves_no_splinters() -> None:
    with pytest.raises(GranularityError, match="cannot be cut any finer"):
        split_region(state(region("r", "####...."), min_pixels=3), *at(0))


def test_coarser_takes_in_what_the_tree_puts_next() -> None:
    before = state(region("r", "##......"), region("s", "..##....", "B"), region("t", "....####"))
    once = merge_with_parent(before, *at(0))
    assert drawn(once) == {"r": "A ####....", "t": "A ....####"}
    assert drawn(merge_with_parent(once, *at(0))) == {"r": "A ########"}
    with pytest.raises(GranularityError, match="cannot be made any coarser"):
        merge_with_parent(merge_with_parent(once, *at(0)), *at(0))


def test_coarser_undoes_finer() -> None:
    before = state(region("r", "####...."), region("t", "....####"))
    assert drawn(merge_with_parent(split_region(before, *at(0)), *at(0))) == drawn(before)


def test_coarser_leaves_regions_that_mostly_lie_elsewhere_whole() -> None:
    before = state(region("r", "##......"), region("t", "...#####"))
    assert drawn(merge_with_parent(before, *at(0))) == {"r": "A ###.....", "t": "A ...#####"}


def test_coarser_works_on_a_region_smaller_than_any_leaf() -> None:
    larger = replace(TREE, leaves=np.array([[0, 1, 2, 2, 3, 3, 3, 3]], np.uint16))
    once = merge_with_parent(replace(state(region("r", ".......#")), tree=larger), *at(7))
    assert drawn(once) == {"r": "A ....####"}
    assert drawn(merge_with_parent(once, *at(7))) == {"r": "A ..######"}


def test_coarser_is_not_content_with_a_splinter() -> None:
    assert drawn(merge_with_parent(state(region("r", "###....."), min_pixels=2), *at(0))) == {"r": "A ########"}


def test_merge_makes_one_of_the_regions_clicked_on() -> None:
    before = state(region("r", "##......"), region("s", "..##....", "Car"), region("t", "....####"))
    assert drawn(merge_regions(before, at(0, 2))) == {"s": "Car ####....", "t": "A ....####"}
    assert drawn(merge_regions(before, at(0, 7))) == {"r": "A ##..####", "s": "Car ..##...."}


def test_merge_takes_segments_where_there_are_no_regions() -> None:
    assert drawn(merge_regions(state(region("r", "##......")), at(0, 4))) == {"r": "A ##..####"}


def test_merge_leaves_out_what_was_clicked_on_with_alt() -> None:
    before = state(region("r", "##......"), region("s", "..##...."), region("t", "....####"))
    points = [*at(0, 2, 7), *at(2, is_positive=False)]
    assert drawn(merge_regions(before, points)) == {"r": "A ##..####", "s": "A ..##...."}


@pytest.mark.parametrize("points", [at(0), at(0, 1), at(0, is_positive=False)])
def test_merge_waits_for_a_second_region(points: Sequence[Point]) -> None:
    with pytest.raises(GranularityError, match="click on another region"):
        merge_regions(state(region("r", "##......")), points)


def inside(*leaves: int) -> CutTree:
    """The tree of a part of the image that falls into these leaves."""
    count = max(leaves) + 1
    merges = np.array([[0, 1], *([row + count - 1, row + 1] for row in range(1, count - 1))]).reshape(-1, 2)
    return CutTree(
        np.array([leaves], np.uint16), Hierarchy(merges, np.zeros(count - 1), np.ones(count - 1, bool)), LEVELS
    )


def test_a_box_is_segmented_anew() -> None:
    after = resegment_box(state(), (slice(0, 1), slice(2, 6)), inside(0, 0, 1, 1), "box")
    assert drawn(after) == {"<box 2>": "A ..##....", "<box 4>": "B ....##.."}


def test_regions_in_the_box_give_way_and_keep_what_lies_beyond() -> None:
    before = state(region("gone", "..##....", "Car"), region("kept", "....####"))
    after = resegment_box(before, (slice(0, 1), slice(2, 6)), inside(0, 0, 1, 2), "box")
    assert drawn(after) == {"<box 2>": "Car ..##....", "<box 4>": "B ....#...", "kept": "A .....###"}


def test_what_runs_on_beyond_the_box_stays_with_its_region() -> None:
    before = state(region("wide", "########"))
    after = resegment_box(before, (slice(0, 1), slice(2, 6)), inside(0, 1, 1, 2), "box")
    assert drawn(after) == {"wide": "A ###..###", "<box 3>": "B ...##..."}


def test_a_box_as_large_as_the_image_has_no_beyond() -> None:
    before = state(region("wide", "########"))
    after = resegment_box(before, (slice(0, 1), slice(0, 8)), inside(0, 0, 0, 0, 1, 1, 1, 1), "box")
    assert drawn(after) == {"<box 0>": "B ####....", "<box 4>": "A ....####"}


def test_the_image_cut_anew_replaces_what_nobody_touched() -> None:
    before = state(region("old", "####...."), region("mine", "....###.", "Car"), region("older", ".......#"))
    found = [region("", "##......"), region("", "..####.."), region("", "......##", "B")]
    after = resegment_all(before, found, ["old", "older"], "typed")
    assert drawn(after) == {
        "mine": "Car ....###.",
        "old": "A ##......",
        "older": "A ..##....",
        "<typed 0>": "B .......#",
    }
    assert drawn(resegment_all(state(), found[:2], [], "typed")) == {
        "<typed 0>": "A ##......",
        "<typed 1>": "A ..####..",
    }


def test_more_untouched_regions_than_were_found_go() -> None:
    before = state(region("old", "####...."), region("older", "....####"))
    assert drawn(resegment_all(before, [region("", "########")], ["old", "older"], "typed")) == {"old": "A ########"}
