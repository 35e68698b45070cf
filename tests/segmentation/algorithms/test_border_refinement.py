from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import Bool, UInt8, UInt16
from scipy.ndimage import distance_transform_edt
from scipy.ndimage import label as label_components
from torch import Tensor

from benchmarks.borders import jaggedness
from tests.builders.memory import resident_peak
from walkcut.segmentation.algorithms import border_refinement
from walkcut.segmentation.algorithms.border_refinement import Window, refine_borders

HALVES = np.array([[0, 0, 1, 1]] * 4)


def photograph(pixels: np.ndarray) -> UInt8[Tensor, "y x 3"]:
    """Return a grey image of these values, with noise."""
    noise = np.random.default_rng(0).normal(0, 4, (*pixels.shape, 3))
    return torch.from_numpy((pixels[..., None] + noise).clip(0, 255).astype(np.uint8))


def disc(size: int, radius: float) -> Bool[np.ndarray, "y x"]:
    y, x = np.ogrid[:size, :size]
    return np.asarray((y - (size - 1) / 2) ** 2 + (x - (size - 1) / 2) ** 2 <= radius**2)


def cells_of(mask: Bool[np.ndarray, "y x"], side: int) -> np.ndarray:
    """Return which cells of a grid are mostly in a mask."""
    count = len(mask) // side
    return np.asarray(mask.reshape(count, side, count, side).mean((1, 3)) > 0.5).astype(np.int64)


def winner_by_hand(labels: np.ndarray, image: np.ndarray, y: int, x: int, radius: int) -> dict[int, float]:
    """Return the votes for each label at a pixel, by the formula."""
    to_lab = np.array(border_refinement._LAB)
    votes: dict[int, float] = {}
    for down, right in product(range(-radius, radius + 1), repeat=2):
        if down**2 + right**2 <= radius**2 + 1:
            row, column = np.clip(y + down, 0, len(labels) - 1), np.clip(x + right, 0, labels.shape[1] - 1)
            difference = (image[row, column] / 255 - image[y, x] / 255) @ to_lab
            exponent = (difference @ difference) / (2 * 0.07**2) + (down**2 + right**2) / (2 * (radius / 2) ** 2)
            votes[labels[row, column]] = votes.get(labels[row, column], 0) + float(np.exp(-exponent))
    return votes


@pytest.mark.parametrize("radius", [1, 3])
def test_each_pixel_takes_the_label_with_the_most_votes(radius: int) -> None:
    random = np.random.default_rng(radius)
    labels = random.integers(0, 3, (7, 9))
    image = random.integers(90, 120, (7, 9, 3)).astype(np.uint8)
    pixels = torch.arange(labels.size)
    won = border_refinement._winners(
        torch.from_numpy(labels), torch.from_numpy(image), pixels, Window(radius, iterations=1)
    )
    for (y, x), label in zip(product(range(7), range(9)), won.tolist(), strict=True):
        votes = winner_by_hand(labels, image, y, x, radius)
        assert votes[label] == pytest.approx(max(votes.values()), rel=1e-4)


def test_a_border_between_cells_moves_to_the_edge_in_the_image() -> None:
    step = np.where(np.arange(32) < 18, 40, 200)[None].repeat(32, 0)
    refined = refine_borders(HALVES, photograph(step), reach=1)
    assert (refined == (np.arange(32) >= 18)).all()


def test_a_wrong_border_moves_as_far_as_it_may() -> None:
    labels = (np.arange(40) >= 20)[None].repeat(40, 0).astype(np.int64)
    step = np.where(np.arange(80) < 46, 40, 200)[None].repeat(80, 0)  # three cells beside the border
    assert (refine_borders(labels, photograph(step), reach=5) == (np.arange(80) >= 46)).all()
    assert (refine_borders(labels, photograph(step)) != (np.arange(80) >= 46)).any()


def test_without_an_edge_a_border_stays() -> None:
    flat = torch.full((12, 12, 3), 100, dtype=torch.uint8)
    assert refine_borders(HALVES, flat).tolist() == [[0] * 6 + [1] * 6] * 12


def test_a_border_has_no_stairs_in_a_large_image_without_edges() -> None:
    circle = disc(1024, 300)
    cells = cells_of(circle, 16)
    refined = refine_borders(cells, torch.full((1024, 1024, 3), 100, dtype=torch.uint8)) == 1
    off = np.where(circle, distance_transform_edt(circle), distance_transform_edt(~circle))
    assert off[refined != circle].max() < 16  # a cell
    assert jaggedness(refined) < 1.09
    assert jaggedness(cells.repeat(16, 0).repeat(16, 1) == 1) > 1.15


def test_a_line_of_three_pixels_survives() -> None:
    line = np.zeros((96, 96), np.bool_)
    line[:, 46:49] = True
    labels = np.zeros((48, 48), np.int64)
    labels[:, 23:25] = 1  # the cells that it touches
    refined = refine_borders(labels, photograph(np.where(line, 40, 200)), reach=2)
    assert np.count_nonzero((refined == 1) != line) == 0


def test_specks_take_the_label_around_them() -> None:
    labels = np.zeros((8, 8), np.int64)
    labels[3, 3] = 1
    image = torch.full((32, 32, 3), 100, dtype=torch.uint8)
    image[14, 14] = 255  # what is left of the cell is smaller than one
    assert not refine_borders(labels, image).any()


@given(st.integers(0, 50), st.integers(1, 12), st.integers(1, 9), st.integers(2, 30))
def test_specks_are_the_small_components(seed: int, height: int, width: int, min_area: int) -> None:
    labels = np.random.default_rng(seed).integers(0, 2, (height, width))
    every = np.arange(labels.size)
    specks = border_refinement._is_speck(labels.ravel(), every, width, min_area).reshape(labels.shape)
    for value in (0, 1):
        components, _ = label_components(labels == value)
        sizes = np.bincount(components.ravel())
        assert (specks[labels == value] == (sizes[components] < min_area)[labels == value]).all()


def test_a_component_that_goes_on_elsewhere_is_no_speck() -> None:
    labels, near = np.array([0, 0, 1, 1, 1]), np.array([1, 2])  # one pixel on each side of the border
    assert not border_refinement._is_speck(labels, near, 5, 3).any()


def test_holes_are_filled_from_the_outside() -> None:
    labels = np.array([[0, 0, 0, 0], [0, 2, 2, 1], [1, 1, 1, 1]], np.uint16)
    filled = border_refinement._filled(labels.ravel().copy(), np.array([5, 6]), 4).reshape(labels.shape)
    assert set(filled[1, 1:3].tolist()) <= {0, 1}
    everything = np.arange(labels.size)
    assert border_refinement._filled(labels.ravel().copy(), everything, 4).tolist() == labels.ravel().tolist()


@given(st.integers(0, 20), st.integers(4, 70), st.integers(4, 70), st.integers(0, 3))
def test_the_size_is_the_images_and_no_label_is_invented(seed: int, height: int, width: int, reach: int) -> None:
    random = np.random.default_rng(seed)
    labels = random.integers(0, 5, (min(height, 16), min(width, 9)))
    image = torch.from_numpy(random.integers(0, 256, (height, width, 3)).astype(np.uint8))
    refined = refine_borders(labels, image, reach=reach)
    assert refined.shape == (height, width)
    assert refined.dtype == np.uint16
    assert set(np.unique(refined)) <= set(np.unique(labels))


def test_votes_in_parts_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, image = cells_of(disc(64, 20), 4), photograph(np.where(disc(64, 21), 60, 180))
    at_once = refine_borders(labels, image, reach=2)
    monkeypatch.setattr(border_refinement, "_CHUNK", 100)
    assert refine_borders(labels, image, reach=2).tolist() == at_once.tolist()


def test_many_labels_are_kept_apart() -> None:
    labels = np.arange(200 * 200).reshape(200, 200)
    refined: UInt16[np.ndarray, "y x"] = refine_borders(labels, torch.zeros(200, 200, 3, dtype=torch.uint8))
    assert int(refined.max()) == labels.max()


def test_a_large_image_takes_little_memory_beside_it() -> None:
    image = torch.full((4000, 6000, 3), 7, dtype=torch.uint8)
    labels = np.arange(8)[None].repeat(171, 0).repeat(32, 1)
    assert resident_peak(lambda: refine_borders(labels, image)) < 5 * image.nbytes
