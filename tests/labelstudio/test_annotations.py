from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage import draw

from tests.builders.annotations import IMAGE, MASK, SIZE, item, masked
from tests.builders.label_config import make_image_tag, make_task_image
from walkcut.errors import BrushError, RequestError
from walkcut.labelstudio.annotations import (
    annotated_image_names,
    annotated_regions,
    read_regions,
    region_numbers,
    suggested_names,
    unread_controls,
)
from walkcut.labelstudio.predictions import Region
from walkcut.labelstudio.shapes import rle


def stroke(*points: float, width: float = 10.0, kind: str = "add") -> dict[str, Any]:
    """A stroke by percent; its points on the screen say nothing."""
    return {"type": kind, "points": [7.0] * len(points), "relativePoints": list(points), "strokeWidth": 99,
            "relativeStrokeWidth": width}  # fmt: skip


def drawn(document: dict[str, Any]) -> list[str]:
    """The one region of a result as a drawing."""
    (region,) = annotated_regions([document], IMAGE.tag.name, SIZE, strict=True)
    return ["".join(".#"[inside] for inside in row) for row in region.mask.astype(int)]


def test_a_brush_mask_is_a_region() -> None:
    (region,) = annotated_regions([masked()], IMAGE, SIZE)
    assert (region.id, region.label, region.mask.tolist()) == ("r1", "Car", MASK.tolist())


def test_a_drafts_strokes_are_drawn_and_erased_in_order() -> None:
    strokes = [stroke(15, 31.25, 85, 31.25), stroke(45, 6.25, 45, 90), stroke(45, 31.25, kind="eraser")]
    assert drawn(item("brushlabels", format="rle", touches=strokes)) == [
        "....#.....", "....#.....", ".###.####.", "....#.....", "....#.....", "....#.....", "....#.....", "....#.....",
    ]  # fmt: skip
    strokes = [stroke(45, 31.25, width=30, kind="eraser")]
    assert drawn(item("brushlabels", format="rle", rle=rle.encode(MASK), touches=strokes))[2:5] == [
        "......#...", "...#.##...", "...####...",
    ]  # fmt: skip


def test_a_wide_stroke_has_round_ends() -> None:
    assert drawn(item("brushlabels", touches=[stroke(35, 43.75, 65, 43.75, width=30)])) == [
        "..........", "..........", "...####...", "..######..", "...####...", "..........", "..........", "..........",
    ]  # fmt: skip


def test_strokes_without_percentages_are_in_pixels() -> None:
    document = item("brushlabels", touches=[{"type": "add", "points": [1.5, 0.5, 4.5, 0.5], "strokeWidth": 1}])
    assert drawn(document)[:2] == [".####.....", ".........."]


def test_rectangles_turn_clockwise_about_their_upper_left_corner() -> None:
    upright: dict[str, Any] = {"x": 50, "y": 25, "width": 30, "height": 25}
    assert drawn(item("rectanglelabels", **upright, rotation=0))[1:5] == [
        "..........", ".....###..", ".....###..", "..........",
    ]  # fmt: skip
    assert drawn(item("rectanglelabels", **upright, rotation=90))[1:6] == [
        "..........", "...##.....", "...##.....", "...##.....", "..........",
    ]  # fmt: skip


def test_ellipses_turn_clockwise_about_their_centre() -> None:
    flat: dict[str, Any] = {"x": 50, "y": 50, "radiusX": 40, "radiusY": 15}
    assert drawn(item("ellipselabels", **flat))[2:6] == ["..........", ".########.", ".########.", ".........."]
    turned = drawn(item("ellipselabels", **flat, rotation=45))
    assert turned == [
        "..........", "..##......", "..###.....", "...###....", "....###...", ".....###..", "......##..", "..........",
    ]  # fmt: skip
    assert drawn(item("ellipselabels", **flat, rotation=405)) == turned


def test_polygons_are_filled() -> None:
    points = [[0, 0], [100, 0], [0, 100]]
    assert drawn(item("polygonlabels", points=points, closed=True)) == [
        "#########.", "########..", "#######...", "######....", "####......", "###.......", "##........", "#.........",
    ]  # fmt: skip


@given(st.lists(st.tuples(st.floats(-50, 150), st.floats(-50, 150)), min_size=3, max_size=9))
def test_polygons_are_filled_by_the_even_odd_rule(corners: list[tuple[float, float]]) -> None:
    x, y = np.array(corners).T * [[SIZE[1] / 100], [SIZE[0] / 100]] - 0.5
    expected = np.zeros(SIZE, bool)
    expected[draw.polygon(y, x, SIZE)] = True
    on_an_edge = np.zeros(SIZE, bool)
    for row, column in np.ndindex(SIZE):
        away = np.stack([x - column, y - row], axis=1)
        following = np.roll(away, -1, axis=0)
        crossed = away[:, 0] * following[:, 1] - away[:, 1] * following[:, 0]
        on_an_edge[row, column] = (np.abs(crossed) < 1e-6).any()
    found = annotated_regions([item("polygonlabels", points=[list(corner) for corner in corners])], IMAGE, SIZE)
    mask = found[0].mask if found else np.zeros(SIZE, bool)
    assert (mask == expected)[~on_an_edge].all()


def test_key_points_are_discs_and_a_pixel_at_least() -> None:
    assert drawn(item("keypointlabels", x=45, y=43.75, width=30))[2:5] == ["...###....", "...###....", "...###...."]
    assert drawn(item("keypointlabels", x=41, y=49, width=0.2))[2:5] == ["..........", "....#.....", ".........."]
    assert drawn(item("keypointlabels", x=100, y=100, width=0))[7] == ".........#"


@pytest.mark.parametrize(
    "document",
    [
        masked(label="Merge"),
        masked(to_name="other"),
        item("keypointlabels", "Car", x=45, y=43, width=1),
        item("keypointlabels", "Finer", x=45, y=43, width=1),
        item("keypointlabels", format="rle", rle=rle.encode(MASK)),
        item("keypointlabels", x=45, y=43, width=1) | {"is_positive": False},
        item("keypointlabels", x=450, y=43, width=1),
        item("brushlabels", format="rle", rle=rle.encode(np.zeros(SIZE, bool))),
        item("textarea", text=["12"]),
        item("choices", choices=["fine"]),
        {"type": "brushlabels", "value": {"rle": rle.encode(MASK), "brushlabels": []}},
        {"type": "brushlabels"},
        {"type": ["brushlabels"], "value": {}},
        "region",
        None,
    ],
)
def test_other_items_and_empty_masks_are_left_out(document: object) -> None:
    assert [region.id for region in annotated_regions([document, masked(id="r2")], IMAGE, SIZE)] == ["r2"]


@pytest.mark.parametrize(
    ("document", "label"),
    [
        (masked() | {"value": {"format": "rle", "rle": rle.encode(MASK)}}, ""),
        (masked() | {"value": {"format": "rle", "rle": rle.encode(MASK), "brushlabels": []}}, ""),
        (masked() | {"type": "brush"}, "Car"),
        (masked() | {"type": "brush", "from_name": "free", "value": {"rle": rle.encode(MASK)}}, ""),
    ],
)
def test_a_brush_region_needs_no_label(document: dict[str, Any], label: str) -> None:
    for selection in (IMAGE, IMAGE.tag.name):
        (region,) = annotated_regions([document, masked(label="Merge", id="p")], selection, SIZE, strict=True)
        assert (region.id, region.label, region.mask.tolist()) == ("r1", label, MASK.tolist())
    assert annotated_image_names([document]) == (IMAGE.tag.name,)


def test_a_plain_brush_that_was_named_is_one_region() -> None:
    plain = masked(from_name="free") | {"type": "brush", "value": {"rle": rle.encode(MASK)}}
    assert [region.label for region in annotated_regions([plain, masked()], IMAGE, SIZE)] == ["Car"]


def test_regions_of_all_controls_of_an_image() -> None:
    result = [masked(), masked(from_name="other", id="r2"), masked(to_name="second", id="r3"), masked(to_name=["?"])]
    assert [region.id for region in annotated_regions(result, "image", SIZE)] == ["r1", "r2"]
    assert annotated_image_names(result) == ("image", "second")


BROKEN = [
    (
        masked(original_width=9),
        RequestError,
        "r1 was drawn on an image of 9×8 pixels, not 10×8: use the annotation of this image",
    ),
    (item("brushlabels", rle=rle.encode(MASK[1:])), BrushError, "region r1: the run-length code holds 280 values"),
    (item("brushlabels", rle=rle.encode(MASK)[:-3]), BrushError, "r1: the run-length code is cut off.*export the"),
    (item("brushlabels", rle=[0.5] * 20), BrushError, "needs a run-length code that is a list of bytes"),
    (item("brushlabels", rle=[[1], [2, 3]]), BrushError, "list of bytes"),
    (item("brushlabels", rle="abc"), BrushError, "list of bytes"),
    (item("brushlabels", rle=[1 << 70] * 20), BrushError, "list of at least 7 bytes"),
    (item("brushlabels", format="rle"), BrushError, "neither a run-length code nor strokes"),
    (item("brushlabels", touches=[3]), RequestError, "a brush stroke is an object, not int"),
    (item("brushlabels", touches=[stroke(1, 2, 3)]), RequestError, "a brush stroke needs points, each an x and a y"),
    (item("brushlabels", touches=[{"type": "add"}]), RequestError, "needs points"),
    (item("brushlabels", touches=[stroke(1, 2, width=-1)]), RequestError, "-1 is out of range for a shape"),
    (item("rectanglelabels", x=1, y=1, width="1", height=1), RequestError, "needs a number, not str; export the"),
    (item("rectanglelabels", x=1, y=1, width=True, height=1), RequestError, "needs a number, not bool"),
    (item("ellipselabels", x=1, y=1, radiusX=float("nan"), radiusY=1), RequestError, "nan is out of range for a shape"),
    (item("ellipselabels", x=1e9, y=1, radiusX=1, radiusY=1), RequestError, "1000000000.0 is out of range for a shape"),
    (item("polygonlabels", points=[[1, 1], [2, 2]]), RequestError, "a polygon needs three points, each an x and a y"),
    (item("polygonlabels", points=[[1, 1], [2], [3, 3]]), RequestError, "three points"),
    (item("keypointlabels", x=None, y=1, width=1), RequestError, "needs a number, not NoneType"),
]


@pytest.mark.parametrize(("document", "error", "message"), BROKEN)
def test_malformed_items_are_left_out_or_refused_with_the_remedy(
    document: object, error: type[Exception], message: str
) -> None:
    assert [region.id for region in annotated_regions([document, masked(id="r2")], IMAGE, SIZE)] == ["r2"]
    with pytest.raises(error, match=message):
        annotated_regions([document], IMAGE.tag.name, SIZE, strict=True)


def test_a_rectangle_outside_the_image_is_no_region() -> None:
    far = item("rectanglelabels", x=-1000, y=-1000, width=1000, height=1000, rotation=1000)
    assert annotated_regions([far], IMAGE, SIZE) == ()


def test_small_regions_lie_on_large_ones_and_later_ones_on_earlier_ones() -> None:
    masks = np.zeros((4, 1, 6), bool)
    masks[0, 0, 1:3] = masks[1, 0, :5] = masks[2, 0, 2:4] = True
    numbers = region_numbers([Region(mask, "Car") for mask in masks], (1, 6))
    assert (numbers.tolist(), numbers.dtype) == ([[2, 1, 3, 3, 2, 0]], np.uint16)


def test_more_regions_than_16_bits_can_number_are_refused() -> None:
    with pytest.raises(RequestError, match="65536 regions are more than 65535: annotate fewer"):
        region_numbers([Region(np.ones((1, 1), bool), "Car")] * 65536, (1, 1))


def test_what_is_left_out_is_named() -> None:
    empty = item("brushlabels", format="rle", rle=rle.encode(np.zeros(SIZE, bool)))
    line = item("polygonlabels", points=[[1, 1], [2, 2]]) | {"id": "p"}
    regions, errors = read_regions([masked(id="r2"), empty, line], IMAGE.tag.name, SIZE)
    assert [region.id for region in regions] == ["r2"]
    assert [str(error).partition(",")[0] for error in errors] == [
        "region r1 covers no pixel of the image: draw it on the image",
        "region p: a polygon needs three points",
    ]


@pytest.mark.parametrize("rotation", [90, 180, 270, -90, "90", None])
def test_a_rotated_view_changes_no_coordinates(rotation: object) -> None:
    box: dict[str, Any] = {"x": 50, "y": 25, "width": 30, "height": 25}
    for document in (
        masked(),
        item("brushlabels", format="rle", touches=[stroke(15, 31.25, 85, 31.25)]),
        item("rectanglelabels", **box),
        item("ellipselabels", x=50, y=50, radiusX=30, radiusY=20),
        item("polygonlabels", points=[[10, 90], [90, 90], [50, 10]]),
        item("keypointlabels", x=50, y=50, width=20),
    ):
        assert drawn(document | {"image_rotation": rotation}) == drawn(document)


def test_a_region_has_the_label_of_its_value_or_alias() -> None:
    image_tag = make_image_tag(labels=("c",), names={"Car": "c"})
    result = [masked(), masked(label="c", id="r2")]
    assert [region.label for region in annotated_regions(result, make_task_image(image_tag), SIZE)] == ["c", "c"]
    named = [{**document, "meta": {"walkcut": {"label": "c"}}} for document in result]
    assert suggested_names(named, make_task_image(image_tag)) == [("c", "c"), ("c", "c")]


def test_controls_of_other_images_are_named() -> None:
    accepted = item("keypointlabels", "Finer", format="rle", rle=[0]) | {"from_name": "point"}
    prompt = item("rectanglelabels", "re-segment", x=1, y=1, width=1, height=1) | {"from_name": "box"}
    text = {"from_name": "note", "to_name": "image", "type": "textarea", "value": {"text": ["a"]}}
    others = [masked(from_name="second", to_name="back"), item("polygonlabels", "Car", points=[]) | {"to_name": "back"}]
    assert unread_controls([masked(), masked(from_name="third"), accepted, prompt, text], [IMAGE]) == ()
    assert set(unread_controls([masked(), *others, prompt], [IMAGE])) == {"second", "brush"}
