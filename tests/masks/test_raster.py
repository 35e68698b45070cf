import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders.masks import drawing
from tests.builders.predictions import fill_even_odd
from walkcut.masks.raster import fill_ellipse, fill_polygon

coordinates = st.integers(-40, 160).map(lambda tenths: tenths / 10 + 0.03)


def test_a_triangle_and_its_hole() -> None:
    triangle = np.array([[0, 0], [6, 0], [0, 6]])
    assert drawing(fill_polygon([triangle], (4, 6))) == ["#####.", "####..", "###...", "##...."]
    hole = np.array([[1, 1], [2, 1], [2, 2], [1, 2]])
    assert drawing(fill_polygon([triangle, hole], (4, 6))) == ["#####.", "#.##..", "###...", "##...."]


@pytest.mark.parametrize("offset", [-9, 9])
def test_a_polygon_outside_the_image_holds_no_pixel(offset: int) -> None:
    assert not fill_polygon([np.array([[0, 0], [3, 0], [3, 3]]) + offset], (4, 5)).any()


@given(st.lists(st.tuples(coordinates, coordinates), min_size=3, max_size=9))
def test_polygons_are_filled_by_the_even_odd_rule(corners: list[tuple[float, float]]) -> None:
    ring = np.array(corners)
    assert (fill_polygon([ring], (11, 12)) == fill_even_odd([ring], (11, 12))).all()


def test_rounding_moves_no_edge_across_a_pixels_centre() -> None:
    """The diagonal passes through centres of pixels."""
    square = np.array([[0, 0], [9, 9], [0, 9]])
    exact = fill_polygon([square], (9, 9))
    for error in (5e-7, -5e-7):
        assert (fill_polygon([square + np.array([error, 0])], (9, 9)) == exact).all()


def test_ellipses_turn_clockwise() -> None:
    assert drawing(fill_ellipse((5, 4), (4, 1), (8, 10), rotation=math.radians(45))) == [
        "..........", "..##......", "...##.....", "...###....", "....###...", ".....##...", "......##..", "..........",
    ]  # fmt: skip


def test_an_ellipse_has_a_radius_of_half_a_pixel_at_least() -> None:
    assert drawing(fill_ellipse((1.5, 0.5), (0, 0), (1, 3))) == [".#."]
