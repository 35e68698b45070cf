import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from tests.builders.graphs import random_walk
from walkcut.segmentation.algorithms import upsampling
from walkcut.segmentation.algorithms.upsampling import (
    assign_pixels,
    leaf_score_maps,
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
