import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage

from walkcut.errors import SegmentationError
from walkcut.hierarchy.colour_graph import colour_graph
from walkcut.segmentation.visualization import draw_overlay, outlines

labels = arrays.arrays(np.int64, arrays.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(0, 3))


def connected(values: np.ndarray) -> np.ndarray:
    """Each connected part of each value as a label of its own, from 0."""
    parts, count = np.zeros(values.shape, np.int64), 0
    for value in np.unique(values):
        found, number = ndimage.label(values == value)
        parts += np.where(found > 0, found + count - 1, 0)
        count += number
    return parts


@given(labels)
def test_six_colours_keep_connected_neighbours_apart(values: np.ndarray) -> None:
    parts = connected(values)
    colours = colour_graph(parts, 6)[parts]
    for one, other, same in (
        (colours[1:], colours[:-1], parts[1:] == parts[:-1]),
        (colours[:, 1:], colours[:, :-1], parts[:, 1:] == parts[:, :-1]),
    ):
        assert ((one != other) | same).all()


def test_one_colour_serves_all_where_there_is_no_other() -> None:
    assert colour_graph(np.array([[0, 1, 2]]), 1).tolist() == [0, 0, 0]


def test_outlines_lie_between_segments() -> None:
    halves = np.repeat([[0, 0, 0, 1, 1, 1]], 2, axis=0)
    assert outlines(halves, width=1).sum(0).tolist() == [0, 0, 2, 2, 0, 0]
    assert not outlines(np.zeros((4, 4), int), width=3).any()


def test_the_image_shows_through_and_neighbours_differ() -> None:
    image = np.full((20, 40, 3), 100, np.uint8)
    halves = np.repeat(np.arange(40)[None] // 20, 20, axis=0)
    overlay = draw_overlay(image, halves)
    assert overlay.shape == image.shape
    assert overlay.dtype == np.uint8
    assert overlay[5, 5].tolist() != overlay[5, 35].tolist()
    assert (overlay[:, 18:21] == 255).all(2).any(1).all()
    brighter = draw_overlay(image + np.uint8(50), halves)
    assert (brighter[5, 5] > overlay[5, 5]).all()


def test_labels_of_another_size_are_refused() -> None:
    with pytest.raises(SegmentationError, match=r"labels of \(2, 2\) do not fit an image of \(3, 3\)"):
        draw_overlay(np.zeros((3, 3, 3), np.uint8), np.zeros((2, 2), int))
