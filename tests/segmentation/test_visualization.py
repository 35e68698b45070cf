import numpy as np
import pytest

from walkcut.errors import SegmentationError
from walkcut.segmentation.visualization import draw_overlay, outlines


def test_outlines_lie_between_segments() -> None:
    halves = np.repeat([[0, 0, 0, 1, 1, 1]], 2, axis=0)
    assert outlines(halves, width=1).sum(0).tolist() == [0, 0, 2, 2, 0, 0]
    assert not outlines(np.zeros((4, 4), int), width=3).any()


def test_the_image_is_visible_and_neighbours_differ() -> None:
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
