import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders.masks import mask_of, masks
from tests.builders.predictions import iou
from walkcut.errors import RequestError
from walkcut.labelstudio.shapes import ellipse


@given(st.floats(8, 30), st.floats(8, 30), st.integers(0, 359))
def test_the_ellipse_of_an_ellipse_is_the_same(radius_x: float, radius_y: float, degrees: int) -> None:
    size = (100, 150)
    value = {
        "x": 40, "y": 55, "radiusX": radius_x / 1.5, "radiusY": radius_y, "rotation": degrees,
    }  # fmt: skip
    mask = ellipse.decode(value, size)
    (found,) = ellipse.encode([mask], 1.0)
    assert iou(ellipse.decode(found, size), mask) > 0.97
    assert (found["x"], found["y"]) == (pytest.approx(40, abs=0.2), pytest.approx(55, abs=0.2))
    assert math.pi * found["radiusX"] * 1.5 * found["radiusY"] == pytest.approx(mask.sum(), rel=0.02)


@pytest.mark.parametrize("degrees", [0, 30, 90, 120])
def test_the_rotation_is_clockwise_in_degrees(degrees: int) -> None:
    value = {"x": 50, "y": 50, "radiusX": 40, "radiusY": 10, "rotation": degrees}
    (found,) = ellipse.encode([ellipse.decode(value, (100, 100))], 1.0)
    difference = abs(found["rotation"] - degrees)
    assert min(difference, 180 - difference) < 1
    assert (found["radiusX"], found["radiusY"]) == (pytest.approx(40, abs=0.5), pytest.approx(10, abs=0.5))


def test_a_pixel_is_a_circle_of_its_moments() -> None:
    (value,) = ellipse.encode([mask_of("....", "..#.")], 1.0)
    radius = 2 / math.sqrt(12)
    assert value == {
        "x": 62.5, "y": 75, "radiusX": pytest.approx(radius * 25), "radiusY": pytest.approx(radius * 50),
        "rotation": value["rotation"],
    }  # fmt: skip


@given(masks.filter(np.any))
def test_the_centre_is_the_masks(mask: np.ndarray) -> None:
    (value,) = ellipse.encode([mask], 1.0)
    y, x = np.argwhere(mask).mean(0) + 0.5
    height, width = mask.shape
    assert (value["x"] * width / 100, value["y"] * height / 100) == (pytest.approx(x), pytest.approx(y))
    assert 0 <= value["rotation"] < 180


@pytest.mark.parametrize("size", [(500, 1), (200, 3), (1, 500)])
def test_ellipses_of_tall_and_wide_images_are_read(size: tuple[int, int]) -> None:
    mask = np.ones(size, bool)
    assert iou(ellipse.decode(ellipse.encode([mask], 1.0)[0], size), mask) > 0.8


def test_malformed_values_are_refused() -> None:
    with pytest.raises(RequestError, match="a shape needs a number, not NoneType"):
        ellipse.decode({"x": 1, "y": 1, "radiusX": 1}, (4, 4))
