from typing import Any

import pytest

from walkcut.labelstudio.results import result_items, shape_items

BOX = {"x": 1, "y": 2, "width": 3, "height": 4}


def item(result_type: str, value: dict[str, Any], identity: str = "a", image: str = "image") -> dict[str, Any]:
    """An item of a region as the editor writes it."""
    return {"id": identity, "type": result_type, "to_name": image, "value": value}


def found(*items: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return id, shape and label of each shape."""
    return [(shape.id, shape.shape, shape.label) for shape in shape_items([*items])]


def test_a_shape_has_the_label_of_its_control() -> None:
    assert found(item("rectanglelabels", {**BOX, "rectanglelabels": ["Car"]})) == [("a", "rectangle", "Car")]


@pytest.mark.parametrize("reverse", [False, True])
def test_a_shape_has_the_label_of_another_item_with_its_id(reverse: bool) -> None:
    items = [item("rectangle", BOX), item("labels", {**BOX, "labels": ["Car"]})]
    assert found(*(items[::-1] if reverse else items)) == [("a", "rectangle", "Car")]


def test_a_region_that_two_controls_label_is_one_shape() -> None:
    """Label Studio writes an item of each control whose label was selected when a suggestion was accepted."""
    brush = item("brushlabels", {"rle": [1], "format": "rle", "brushlabels": ["Region"]})
    point = item("keypointlabels", {"rle": [1], "keypointlabels": ["Person"]})
    assert found(brush, point) == found(point, brush) == [("a", "brush", "Region")]


def test_regions_without_an_id_and_on_other_images_are_apart() -> None:
    box = item("rectangle", BOX)
    nameless = {name: value for name, value in box.items() if name != "id"}
    assert len(shape_items([nameless, nameless])) == 2
    assert len(shape_items([box, item("rectangle", BOX, image="back")])) == 2


def test_regions_with_one_id_and_different_geometry_are_apart() -> None:
    assert len(shape_items([item("rectangle", BOX), item("rectangle", {**BOX, "x": 50})])) == 2


@pytest.mark.parametrize("result", [None, "text", {"type": "rectangle"}, [None, 1, {"type": 3, "value": BOX}]])
def test_anything_but_a_list_of_items_has_none(result: object) -> None:
    assert result_items(result) == []


def test_other_results_are_no_shapes() -> None:
    assert found(item("choices", {"choices": ["yes"]}), item("textarea", {"text": ["12"]})) == []
