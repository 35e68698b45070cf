from collections.abc import Callable, Sequence
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
    select_in_box,
    split_region,
)
from walkcut.labelstudio.predictions import Region
from walkcut.labelstudio.prompts import Point
from walkcut.storage import Crop

# Leaves 0-3 of two pixels each, side by side; 0 and 1 join into 4, 2 and 3 into 5, these two into 6.
HIERARCHY = Hierarchy(np.array([[0, 1], [2, 3], [4, 5]]), np.array([0.9, 0.5, 0.1]), np.array([False, False, True]))
LEVELS = {Level.COARSE: 2, Level.MEDIUM: 3, Level.FINE: 4}
TREE = CutTree(np.array([[0, 0, 1, 1, 2, 2, 3, 3]], np.uint16), HIERARCHY, LEVELS)


def region(name: str, pixels: str, label: str = "A") -> Region:
    """A region by its pixels, such as `##......`."""
    return Region(np.array([[pixel == "#" for pixel in pixels]]), label, 1.0, id=name)


def state(*regions: Region, segments: int = 2, min_pixels: float = 1) -> EditState:
    by_id = {region.id: region for region in regions}
    return EditState(
        TREE,
        Segments(segments),
        by_id,
        min_pixels / TREE.leaves.size,
        ("A", "B"),
        lambda words: f"<{words}>",
        crop_tree,
    )


def crop_tree(crop: Crop) -> CutTree:
    """Not asked for: these images are smaller than any crop."""
    raise AssertionError(crop)


def at(*pixels: int, is_positive: bool = True) -> list[Point]:
    return [Point(f"p{pixel}", "", (pixel + 0.5) / 8, 0.5, is_positive) for pixel in pixels]


def drawn(after: EditState) -> dict[str, str]:
    """Each region's label and pixels, by its id."""
    return {
        name: f"{region.label} {''.join('.#'[int(pixel)] for pixel in region.mask[0])}"
        for name, region in after.regions.items()
    }


def test_a_click_selects_the_segment_there() -> None:
    assert drawn(select(state(), at(5))) == {"<select p5>": "A ....####"}
    assert drawn(select(state(segments=4), at(5))) == {"<select p5>": "A ....##.."}


def test_more_clicks_extend_the_selection_and_others_exclude() -> None:
    assert drawn(select(state(segments=4), at(5, 0))) == {"<select p5>": "A ##..##.."}
    points = [*at(5), *at(7, is_positive=False)]
    assert drawn(select(state(), points)) == {"<select p5>": "A ....##.."}


def test_a_selection_takes_the_given_label_or_one_unlike_its_neighbours() -> None:
    assert drawn(select(state(), at(0), label="Car")) == {"<select p0>": "Car ####...."}
    beside = region("r", "....####", "A")
    assert drawn(select(state(beside), at(0)))["<select p0>"] == "B ####...."


def test_a_selection_is_cut_out_of_what_lies_below() -> None:
    below = [region("r", "###.....", "Car"), region("s", "...#####", "B"), region("t", "..##....", "A")]
    assert drawn(select(state(*below, segments=4), at(3))) == {
        "r": "Car ##......",
        "s": "B ....####",
        "<select p3>": "A ..##....",
    }


def test_a_selection_keeps_the_name_of_what_it_replaces() -> None:
    sky, point = region("r", "########", "Sky"), at(0)
    assert drawn(select(state(sky), point)) == {"r": "Sky ....####", "<select p0>": "Sky ####...."}
    assert drawn(select(state(sky), point, label="Car"))["<select p0>"] == "Car ####...."
    assert not select(state(sky), point).regions["<select p0>"].modified
    assert select(state(sky), point, label="Car").regions["<select p0>"].modified


def test_merged_regions_get_another_colour_than_their_neighbours_unless_they_are_named() -> None:
    def merged(label: str) -> str:
        parts = region("r", "##......", label), region("s", "..##....", "B"), region("t", "....####")
        return drawn(merge_regions(state(*parts), at(0, 2)))["r"]

    assert [merged(label) for label in ("A", "B", "Car")] == ["B ####....", "B ####....", "Car ####...."]


def test_without_neutral_labels_regions_stay_without_a_label() -> None:
    parts = region("r", "##......", ""), region("s", "..##....", ""), region("t", "....####", "Sky")
    unnamed = replace(state(*parts, segments=4), placeholders=("",))
    assert drawn(split_region(unnamed, *at(5)))["<t 6>"] == "Sky ......##"
    assert drawn(merge_with_parent(unnamed, *at(0))) == {"r": " ####....", "t": "Sky ....####"}
    assert drawn(merge_regions(unnamed, at(0, 5))) == {"s": " ..##....", "t": "Sky ##..####"}
    assert drawn(select(replace(unnamed, regions={}), at(0))) == {"<select p0>": " ##......"}


def test_clicks_that_select_nothing_are_refused() -> None:
    with pytest.raises(GranularityError, match="click without Alt"):
        select(state(), at(3, is_positive=False))


def test_finer_splits_a_region_and_the_part_at_the_click_keeps_the_id() -> None:
    assert drawn(split_region(state(region("r", "####....")), *at(3))) == {"r": "A ..##....", "<r 0>": "B ##......"}
    assert drawn(split_region(state(region("r", "####....")), *at(0))) == {"r": "A ##......", "<r 2>": "B ..##...."}


def test_finer_keeps_a_semantic_label() -> None:
    assert drawn(split_region(state(region("r", "####....", "Car")), *at(0))) == {
        "r": "Car ##......",
        "<r 2>": "Car ..##....",
    }


def test_finer_splits_a_drawn_region_within_its_border() -> None:
    assert drawn(split_region(state(region("r", ".###....")), *at(3))) == {"r": "A ..##....", "<r 1>": "B .#......"}


def test_finer_without_a_region_splits_the_segment() -> None:
    assert drawn(split_region(state(region("r", "......##")), *at(0))) == {
        "r": "A ......##",
        "<segment 0>": "A ##......",
        "<<segment 0> 2>": "B ..##....",
    }


def test_the_topmost_of_overlapping_regions_is_edited() -> None:
    before = state(region("below", "########"), region("above", "####...."))
    assert drawn(split_region(before, *at(0))) == {
        "below": "A ########",
        "above": "A ##......",
        "<above 2>": "B ..##....",
    }


def test_finer_makes_no_part_below_the_minimum_area() -> None:
    with pytest.raises(GranularityError, match="cannot be cut any finer"):
        split_region(state(region("r", "####...."), min_pixels=3), *at(0))


def test_coarser_merges_the_region_with_its_parent() -> None:
    before = state(region("r", "##......"), region("s", "..##....", "B"), region("t", "....####"))
    once = merge_with_parent(before, *at(0))
    assert drawn(once) == {"r": "B ####....", "t": "A ....####"}
    assert drawn(merge_with_parent(once, *at(0))) == {"r": "B ########"}
    with pytest.raises(GranularityError, match="cannot be made any coarser"):
        merge_with_parent(merge_with_parent(once, *at(0)), *at(0))


def test_coarser_undoes_finer() -> None:
    before = state(region("r", "####...."), region("t", "....####", "B"))
    assert drawn(merge_with_parent(split_region(before, *at(0)), *at(0))) == drawn(before)


def test_coarser_leaves_regions_that_lie_mostly_outside() -> None:
    before = state(region("r", "##......"), region("t", "...#####"))
    assert drawn(merge_with_parent(before, *at(0))) == {"r": "B ###.....", "t": "A ...#####"}


def test_coarser_works_on_a_region_smaller_than_any_leaf() -> None:
    larger = replace(TREE, leaves=np.array([[0, 1, 2, 2, 3, 3, 3, 3]], np.uint16))
    once = merge_with_parent(replace(state(region("r", ".......#")), tree=larger), *at(7))
    assert drawn(once) == {"r": "A ....####"}
    assert drawn(merge_with_parent(once, *at(7))) == {"r": "A ..######"}


def test_coarser_adds_at_least_the_minimum_area() -> None:
    assert drawn(merge_with_parent(state(region("r", "###....."), min_pixels=2), *at(0))) == {"r": "A ########"}


def test_merge_joins_the_regions_at_the_clicks() -> None:
    before = state(region("r", "##......"), region("s", "..##....", "Car"), region("t", "....####"))
    assert drawn(merge_regions(before, at(0, 2))) == {"s": "Car ####....", "t": "A ....####"}
    assert drawn(merge_regions(before, at(0, 7))) == {"r": "A ##..####", "s": "Car ..##...."}


def test_merge_without_a_region_takes_the_segment() -> None:
    assert drawn(merge_regions(state(region("r", "##......")), at(0, 4))) == {"r": "A ##..####"}


def test_merge_leaves_out_regions_at_negative_points() -> None:
    before = state(region("r", "##......"), region("s", "..##...."), region("t", "....####"))
    points = [*at(0, 2, 7), *at(2, is_positive=False)]
    assert drawn(merge_regions(before, points)) == {"r": "B ##..####", "s": "A ..##...."}


@pytest.mark.parametrize("points", [at(0), at(0, 1), at(0, is_positive=False)])
def test_merge_waits_for_a_second_region(points: Sequence[Point]) -> None:
    with pytest.raises(GranularityError, match="click on one more region"):
        merge_regions(state(region("r", "##......")), points)


def inside(*leaves: int) -> CutTree:
    """The tree of a part of the image that falls into these leaves."""
    count = max(leaves) + 1
    merges = np.array([[0, 1], *([row + count - 1, row + 1] for row in range(1, count - 1))]).reshape(-1, 2)
    return CutTree(
        np.array([leaves], np.uint16), Hierarchy(merges, np.zeros(count - 1), np.ones(count - 1, bool)), LEVELS
    )


def test_a_box_is_segmented_again() -> None:
    after = resegment_box(state(), (slice(0, 1), slice(2, 6)), inside(0, 0, 1, 1), "box")
    assert drawn(after) == {"<box 2>": "A ..##....", "<box 4>": "B ....##.."}


def test_regions_in_the_box_are_replaced_and_keep_their_part_outside() -> None:
    before = state(region("inside", "..##....", "Car"), region("kept", "....####"))
    after = resegment_box(before, (slice(0, 1), slice(2, 6)), inside(0, 0, 1, 2), "box")
    assert drawn(after) == {"<box 2>": "Car ..##....", "<box 4>": "B ....#...", "kept": "A .....###"}


def test_a_segment_that_continues_outside_the_box_stays_with_its_region() -> None:
    before = state(region("wide", "########"))
    after = resegment_box(before, (slice(0, 1), slice(2, 6)), inside(0, 1, 1, 2), "box")
    assert drawn(after) == {"wide": "A ###..###", "<box 3>": "B ...##..."}


def test_a_box_with_a_label_makes_one_region_of_what_is_inside_and_cuts_the_others() -> None:
    before = state(region("inside", "..##....", "Car"), region("wide", "....####"))
    after = select_in_box(before, (slice(0, 1), slice(2, 6)), inside(0, 0, 1, 2), "box", "Tree")
    assert drawn(after) == {"<box 2>": "Tree ..###...", "wide": "A .....###"}
    assert [item.modified for item in after.regions.values()] == [False, True]


def test_a_box_with_a_label_always_makes_a_region() -> None:
    before = state(region("wide", "########"))
    crop, segments = (slice(0, 1), slice(2, 6)), inside(0, 0, 1, 1)
    assert drawn(resegment_box(before, crop, segments, "box")) == drawn(before)
    after = select_in_box(before, crop, segments, "box", "Tree")
    assert drawn(after) == {"wide": "A ##....##", "<box 2>": "Tree ..####.."}


def test_a_box_as_large_as_the_image_replaces_all_regions() -> None:
    before = state(region("wide", "########"))
    after = resegment_box(before, (slice(0, 1), slice(0, 8)), inside(0, 0, 0, 0, 1, 1, 1, 1), "box")
    assert drawn(after) == {"<box 0>": "B ####....", "<box 4>": "A ....####"}


def test_segmenting_the_image_again_replaces_unmodified_regions_under_the_ids_of_a_prediction() -> None:
    mine = replace(region("<1>", "....###.", "Car"), modified=True)
    before = state(region("old", "####...."), mine, region("<0>", ".......#", "Car"))
    segmented = [region("", "##......"), region("", "..####.."), region("", "......##", "B")]
    assert drawn(resegment_all(before, segmented)) == {
        "<1>": "Car ....###.",
        "<0>": "A ##......",
        "<2>": "A ..##....",
        "<3>": "B .......#",
    }
    assert drawn(resegment_all(state(), segmented[:2])) == {"<0>": "A ##......", "<1>": "A ..####.."}


def test_surplus_unmodified_regions_are_deleted() -> None:
    before = state(region("<0>", "####...."), region("<1>", "....####"))
    assert drawn(resegment_all(before, [region("", "########")])) == {"<0>": "A ########"}


def test_an_id_that_a_region_has_is_not_given_again() -> None:
    before = state(region("r", "####...."), region("<r 2>", "......##"))
    assert drawn(split_region(before, *at(0))) == {
        "r": "A ##......",
        "<r 2>": "A ......##",
        "<<r 2>>": "B ..##....",
    }


@pytest.mark.parametrize(
    ("edit", "modified"),
    [
        (lambda before: split_region(before, *at(0)), {"r", "<r 2>"}),
        (lambda before: merge_with_parent(before, *at(5)), {"r"}),
        (lambda before: merge_with_parent(merge_with_parent(before, *at(5)), *at(5)), {"s"}),
        (lambda before: merge_with_parent(before, *at(0)), {"r"}),
        (lambda before: merge_regions(before, at(5, 0)), {"r"}),
        (lambda before: select(before, at(6), label="Car"), {"r", "<select p6>"}),
        (lambda before: select(before, at(6)), {"r"}),
        (
            lambda before: resegment_box(before, (slice(0, 1), slice(0, 8)), inside(*[0] * 4, *[1] * 4), "box"),
            {"<box 0>"},
        ),
    ],
)
def test_what_is_made_of_a_modified_region_is_modified(
    edit: Callable[[EditState], EditState], modified: set[str]
) -> None:
    before = state(
        replace(region("r", "####....", "Car"), modified=True), region("s", "....##.."), region("t", "......##")
    )
    assert {name for name, region in edit(before).regions.items() if region.modified} == modified
