import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, interpolate, normalize

from tests.builders.graphs import random_walk
from tests.builders.memory import resident_peak, traced
from walkcut.segmentation.algorithms import upsampling
from walkcut.segmentation.algorithms.upsampling import (
    assign_pixels,
    joint_bilateral_upsample,
    leaf_score_maps,
    remove_small_components,
    upsampled_argmax,
)

sizes = st.tuples(st.integers(1, 9), st.integers(1, 9))


def nearest_mean_by_the_papers(F: Tensor, segments: Tensor, grid: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """DWC 3.6 by the formula: upsample the features of all patches and compare them with each segment's mean."""
    means = torch.stack([F[segments == segment].mean(0) for segment in range(int(segments.max()) + 1)])
    pixels = interpolate(F.T.unflatten(1, grid)[None], size=size, mode="bilinear", align_corners=False)[0]
    return torch.einsum("chw,sc->shw", normalize(pixels, dim=0), normalize(means, dim=1))


def assert_nearest(labels: np.ndarray, similarity: Tensor) -> None:
    """Check that every pixel has the most similar segment, up to rounding."""
    chosen = torch.from_numpy(labels.astype(np.int64))
    torch.testing.assert_close(similarity.gather(0, chosen[None])[0], similarity.max(0).values)


@given(sizes, sizes, st.integers(0, 1000))
def test_score_maps_agree_with_the_papers_tensor(grid: tuple[int, int], size: tuple[int, int], seed: int) -> None:
    F = random_walk(grid[0] * grid[1], seed)
    leaf_of = torch.arange(len(F)) % 5
    labels = assign_pixels(leaf_score_maps(F, leaf_of, grid), size)
    assert_nearest(labels, nearest_mean_by_the_papers(F, leaf_of, grid, size))


def test_the_first_of_equal_maps_wins() -> None:
    scores = random_walk(12, 3)[[3, 3, 3]].unflatten(1, (3, 4))
    assert upsampled_argmax(scores, (7, 9)).tolist() == [[0] * 9] * 7


def test_many_segments_are_compared_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = leaf_score_maps(random_walk(12, 0), torch.arange(12), (3, 4))
    at_once = assign_pixels(scores, (7, 5))
    monkeypatch.setattr(upsampling, "_MAX_SCORES", 70)
    assert assign_pixels(scores, (7, 5)).tolist() == at_once.tolist()


def votes_by_hand(labels: np.ndarray, image: np.ndarray, y: int, x: int) -> dict[int, float]:
    """Kopf et al. 2007 for one pixel of an image twice as large as the grid."""
    means = image.reshape(len(labels), 2, -1, 2, 3).mean((1, 3)) / 255
    at_y, at_x = (y + 0.5) / 2 - 0.5, (x + 0.5) / 2 - 0.5
    votes: dict[int, float] = {}
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            row = min(max(round(at_y) + down, 0), labels.shape[0] - 1)
            column = min(max(round(at_x) + right, 0), labels.shape[1] - 1)
            distance = ((row - at_y) ** 2 + (column - at_x) ** 2) / 2
            difference = ((means[row, column] - image[y, x] / 255) ** 2).sum() / (2 * 0.1**2)
            votes[labels[row, column]] = votes.get(labels[row, column], 0) + float(np.exp(-distance - difference))
    return votes


@pytest.mark.parametrize(("height", "width", "seed"), [(2, 2, 0), (2, 5, 1), (5, 3, 2), (4, 4, 3)])
def test_each_pixel_has_the_label_with_the_most_votes(
    height: int, width: int, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(seed)
    labels = random.integers(0, 4, (height, width))
    image = random.integers(0, 255, (2 * height, 2 * width, 3), dtype=np.uint8)
    monkeypatch.setattr(upsampling, "remove_small_components", lambda labels, min_area: labels)
    upsampled = joint_bilateral_upsample(labels, torch.from_numpy(image))
    for y in range(2 * height):
        for x in range(2 * width):
            votes = votes_by_hand(labels, image, y, x)
            assert votes[upsampled[y, x]] == pytest.approx(max(votes.values()), rel=1e-4)


def test_small_components_take_the_label_around_them() -> None:
    labels = np.array([[0, 0, 0, 1, 1], [0, 2, 0, 1, 0], [0, 0, 0, 1, 0]], np.uint16)
    assert remove_small_components(labels, 2).tolist() == [[0, 0, 0, 1, 1], [0, 0, 0, 1, 0], [0, 0, 0, 1, 0]]
    assert remove_small_components(labels, 1).tolist() == labels.tolist()
    assert remove_small_components(labels, 99).tolist() == labels.tolist()


def test_upsampling_in_strips_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    labels, image = random.integers(0, 4, (5, 6)), torch.from_numpy(random.integers(0, 255, (23, 31, 3), np.uint8))
    at_once = joint_bilateral_upsample(labels, image)
    monkeypatch.setattr(upsampling, "_MAX_VOTES", 1000)
    assert joint_bilateral_upsample(labels, image).tolist() == at_once.tolist()


def test_a_border_between_cells_moves_to_the_edge_in_the_image() -> None:
    image = torch.full((8, 32, 3), 200, dtype=torch.uint8)
    image[:, :18] = 40
    # Cells are 8 pixels wide, and the edge is 2 pixels beyond their border.
    upsampled = joint_bilateral_upsample(np.array([[0, 0, 1, 1]]), image)
    assert (upsampled == (np.arange(32) >= 18)).all()


def test_without_an_edge_the_nearest_cell_wins() -> None:
    flat = torch.full((6, 12, 3), 100, dtype=torch.uint8)
    assert joint_bilateral_upsample(np.array([[0, 0, 1, 1]]), flat).tolist() == [[0] * 6 + [1] * 6] * 6


def test_labels_of_the_images_size_are_unchanged() -> None:
    labels = np.arange(6).reshape(2, 3)
    assert joint_bilateral_upsample(labels, torch.zeros(2, 3, 3, dtype=torch.uint8)).tolist() == labels.tolist()


@given(st.tuples(st.integers(1, 90), st.integers(1, 90)), st.tuples(st.integers(2, 90), st.integers(2, 90)))
def test_mean_colours_of_cells_are_those_of_the_whole_image(size: tuple[int, int], grid: tuple[int, int]) -> None:
    image = torch.randint(0, 256, (*size, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    at_once = adaptive_avg_pool2d(image.permute(2, 0, 1).float() / 255, grid).permute(1, 2, 0)
    assert torch.equal(upsampling._cell_colours(image, grid), at_once)


def test_a_large_image_is_not_copied_into_floats_for_its_mean_colours() -> None:
    image = torch.full((4000, 6000, 3), 7, dtype=torch.uint8)
    assert resident_peak(lambda: upsampling._cell_colours(image, (171, 256))) < image.nbytes


def test_small_components_are_found_in_bounded_memory() -> None:
    labels = np.arange(6, dtype=np.uint16).repeat(200).repeat(800).reshape(1200, 800)
    labels[5:7, 5:7] = 9
    cleaned, (_, peak) = remove_small_components(labels, 5), traced(lambda: remove_small_components(labels, 5))
    assert not (cleaned == 9).any()
    assert peak < 25 * labels.size
