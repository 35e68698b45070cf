from typing import Any

import numpy as np
import pytest
from hypothesis import given

from tests.builders.masks import drawing, mask_of, masks
from walkcut.errors import RequestError
from walkcut.labelstudio.shapes import rectangle


def test_the_bounding_box_in_percent() -> None:
    value = {"x": 25, "y": 25, "width": 50, "height": 50, "rotation": 0}
    assert rectangle.encode([mask_of("....", "..#.", ".#..", "....")], 1.0) == [value]
    assert drawing(rectangle.decode(value, (4, 4))) == ["....", ".##.", ".##.", "...."]


def test_a_rotated_rectangle_turns_clockwise_about_its_upper_left_corner() -> None:
    value = {"x": 50, "y": 25, "width": 50, "height": 25, "rotation": 90}
    assert drawing(rectangle.decode(value, (4, 4))) == ["....", ".#..", ".#..", "...."]


@pytest.mark.parametrize("change", [{}, {"rotation": None}])
def test_a_rectangle_without_a_rotation_is_upright(change: dict[str, Any]) -> None:
    value = {"x": 25, "y": 25, "width": 50, "height": 50, **change}
    assert drawing(rectangle.decode(value, (4, 4))) == ["....", ".##.", ".##.", "...."]


@given(masks.filter(np.any))
def test_the_box_holds_the_mask_and_nothing_beside_it(mask: np.ndarray) -> None:
    box = rectangle.decode(rectangle.encode([mask], 1.0)[0], mask.shape)
    rows, columns = np.nonzero(mask)
    expected = np.zeros_like(mask)
    expected[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = True
    assert (box == expected).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": -1}, "-1 is out of range for a shape on an image"),
        ({"x": "1"}, "a shape needs a number, not str"),
        ({"height": True}, "a shape needs a number, not bool"),
        ({"rotation": float("nan")}, "nan is out of range"),
    ],
)
def test_malformed_values_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        rectangle.decode({"x": 1, "y": 1, "width": 1, "height": 1, **change}, (4, 4))
