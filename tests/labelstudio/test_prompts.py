import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders.label_config import make_image_tag, make_task_image
from walkcut.labelstudio.prompts import Box, Point, read_prompts, text_commands

IMAGE = make_task_image(make_image_tag("$photo"))
SIZE = (100, 200)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def point(x: object = 37.5, y: object = 40.0, **more: object) -> dict[str, Any]:
    value = {"x": x, "y": y, "width": 0.2, "labels": ["Finer"], "keypointlabels": ["Finer"]}
    return {"id": "p1", "type": "keypointlabels", "to_name": "image", "value": value} | more


def box(x: float, y: float, width: float, height: float, rotation: float = 0) -> dict[str, Any]:
    value = {"x": x, "y": y, "width": width, "height": height, "rotation": rotation, "rectanglelabels": ["Here"]}
    sizes = {"original_width": SIZE[1], "original_height": SIZE[0]}
    return {"id": "b1", "type": "rectanglelabels", "to_name": "image", "value": value} | sizes


def read(*items: object) -> list[Point | Box]:
    return read_prompts({"result": list(items)}, IMAGE)


def test_a_click_is_a_point_with_its_label() -> None:
    assert read(point()) == [Point("p1", "Finer", 0.375, 0.4)]
    assert read(point(is_positive=True)) == [Point("p1", "Finer", 0.375, 0.4)]
    assert read(point(is_positive=False)) == [Point("p1", "Finer", 0.375, 0.4, is_positive=False)]


def test_several_clicks_come_in_order() -> None:
    assert [prompt.id for prompt in read(point(), point(id="p2"))] == ["p1", "p2"]


@pytest.mark.parametrize(
    ("x", "y", "pixel"), [(0, 0, (0, 0)), (100, 100, (99, 199)), (49.9, 50, (50, 99)), (99.99, 0, (0, 199))]
)
def test_points_on_the_border_lie_in_the_image(x: float, y: float, pixel: tuple[int, int]) -> None:
    (found,) = read(point(x, y))
    assert isinstance(found, Point)
    assert found.pixel(SIZE) == pixel


@pytest.mark.parametrize(
    "item",
    [
        point(-0.1, 50),
        point(50, 100.1),
        point(math.nan, 50),
        point(10**400, 50),
        point("5", 50),
        point(True, 50),
        point(to_name="other"),
        point(value=None),
        point(value={"number": 7}, type="number"),  # a number with the point's id
        point(type=["keypointlabels"]),
        box(10, 10, 0, 5),
        box(110, 10, 20, 5),
        box(10, math.inf, 20, 5),
        None,
        "text",
    ],
)
def test_other_items_and_prompts_outside_the_image_are_left_out(item: object) -> None:
    assert read(item) == []


def test_a_point_without_a_label_has_an_empty_one() -> None:
    assert read(point(value={"x": 1, "y": 2})) == [Point("p1", "", 0.01, 0.02)]


def test_a_box_covers_the_pixels_that_it_touches() -> None:
    (found,) = read(box(10, 20, 30, 40))
    assert isinstance(found, Box)
    assert (found.label, found.left, found.top) == ("Here", 0.1, 0.2)
    assert found.pixels(SIZE) == (slice(20, 60), slice(20, 80))


def test_a_box_that_goes_beyond_the_image_ends_with_it() -> None:
    (found,) = read(box(-10, 50, 300, 300))
    assert isinstance(found, Box)
    assert found.pixels(SIZE) == (slice(50, 100), slice(0, 200))


def test_a_rotated_box_becomes_its_bounding_box() -> None:
    (found,) = read(box(50, 20, 10, 40, rotation=90))  # 20 by 40 pixels, turned about its upper left corner
    assert isinstance(found, Box)
    assert found.pixels(SIZE) == (slice(20, 40), slice(60, 100))


@pytest.mark.parametrize(
    ("where", "rows"),
    [(0, slice(0, 16)), (50, slice(43, 59)), (99, slice(84, 100))],
)
def test_a_box_too_small_to_segment_grows(where: float, rows: slice) -> None:
    (found,) = read(box(where, where, 1, 1))
    assert isinstance(found, Box)
    assert found.pixels(SIZE)[0] == rows


def test_an_image_smaller_than_any_box_is_taken_whole() -> None:
    (found,) = read(box(20, 20, 10, 10))
    assert isinstance(found, Box)
    assert found.pixels((10, 12)) == (slice(0, 10), slice(0, 12))


def test_lines_that_walkcut_wrote_are_no_commands() -> None:
    assert text_commands({"result": [text_field("granularity", "12", "→ 12 segments")]}, IMAGE) == ["12"]
    assert text_commands({"result": [text_field("status", "anything"), text_field("note", "7")]}, IMAGE) == ["7"]


def text_field(name: str, *lines: str, to_name: str = "image") -> dict[str, object]:
    return {"type": "textarea", "from_name": name, "to_name": to_name, "value": {"text": list(lines)}}


def test_the_granularity_field_precedes_other_text_fields() -> None:
    note, typed = text_field("note", "hello"), text_field("granularity", "3", "5")
    elsewhere = text_field("granularity", "7", to_name="other")
    point = {"type": "keypointlabels", "from_name": "kp", "to_name": "image", "value": {"x": 1}}
    assert text_commands({"result": [point, typed, note, elsewhere]}, IMAGE) == ["3", "5"]
    assert text_commands({"result": [note, elsewhere]}, IMAGE) == ["hello"]


@pytest.mark.parametrize(
    "context", [None, "text", [], {}, {"result": None}, {"result": [None, {"type": "textarea", "value": "x"}]}]
)
def test_contexts_without_text_have_no_commands(context: object) -> None:
    assert text_commands(context, IMAGE) == []


@given(JSON | st.builds(lambda items: {"result": items}, st.lists(JSON)))
def test_any_context_can_be_read(context: object) -> None:
    assert text_commands(context, IMAGE) == [] or isinstance(context, dict)
    assert read_prompts(context, IMAGE) == [] or isinstance(context, dict)


@given(st.dictionaries(st.sampled_from(["x", "y", "width", "height", "rotation", "keypointlabels"]), JSON))
def test_any_value_can_be_read(value: dict[str, object]) -> None:
    for kind in ("keypointlabels", "rectanglelabels"):
        for found in read({"type": kind, "value": value}):
            place = found.pixel(SIZE) if isinstance(found, Point) else found.pixels(SIZE)
            assert len(place) == 2


def test_a_prompt_has_the_label_of_its_value_or_alias() -> None:
    image_tag = make_image_tag(labels=("c",), names={"Car": "c", "f": "Finer"})
    clicks = [point(), point(value={"x": 1, "y": 1, "keypointlabels": ["Car"]})]
    boxes = [
        {**box(10, 10, 20, 20), "id": name, "value": {**box(10, 10, 20, 20)["value"], "rectanglelabels": [name]}}
        for name in "fc"
    ]
    found = read_prompts({"result": [*clicks, *boxes]}, make_task_image(image_tag))
    assert [prompt.label for prompt in found] == ["Finer", "c", "Finer", "c"]
