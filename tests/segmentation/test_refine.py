import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import interpolate, normalize, one_hot

from tests.graphs import random_walk
from walkcut.segmentation import refine
from walkcut.segmentation.refine import assign_pixels, score_leaves, upsample_labels

sizes = st.tuples(st.integers(1, 9), st.integers(1, 9))


def nearest_mean_by_the_papers(F: Tensor, segments: Tensor, grid: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """DWC 3.6 to the letter: the features of all patches upsampled, their cosine with each segment's mean."""
    means = torch.stack([F[segments == segment].mean(0) for segment in range(int(segments.max()) + 1)])
    pixels = interpolate(F.T.unflatten(1, grid)[None], size=size, mode="bilinear", align_corners=False)[0]
    return torch.einsum("chw,sc->shw", normalize(pixels, dim=0), normalize(means, dim=1))


def assert_nearest(labels: np.ndarray, similarity: Tensor) -> None:
    """Every pixel has the most similar segment, or one as similar up to rounding."""
    chosen = torch.from_numpy(labels.astype(np.int64))
    torch.testing.assert_close(similarity.gather(0, chosen[None])[0], similarity.max(0).values)


@given(sizes, sizes, st.integers(0, 1000))
def test_score_maps_answer_as_the_papers_tensor_does(grid: tuple[int, int], size: tuple[int, int], seed: int) -> None:
    F = random_walk(grid[0] * grid[1], seed)
    leaf_of = torch.arange(len(F)) % 5
    labels = assign_pixels(score_leaves(F, leaf_of, grid), size)
    assert_nearest(labels, nearest_mean_by_the_papers(F, leaf_of, grid, size))


@given(sizes, sizes, st.integers(0, 1000))
def test_unions_of_leaves_are_assigned_exactly(grid: tuple[int, int], size: tuple[int, int], seed: int) -> None:
    F = random_walk(grid[0] * grid[1], seed)
    leaf_of = torch.arange(len(F)) % 5
    groups = torch.tensor([0, 1, 0, 1, 1])[: int(leaf_of.max()) + 1]
    labels = assign_pixels(score_leaves(F, leaf_of, grid).joined(groups), size)
    assert_nearest(labels, nearest_mean_by_the_papers(F, groups[leaf_of], grid, size))


def test_many_segments_are_compared_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = score_leaves(random_walk(12, 0), torch.arange(12), (3, 4))
    at_once = assign_pixels(scores, (7, 5))
    monkeypatch.setattr(refine, "_SCORES_AT_ONCE", 70)
    assert assign_pixels(scores, (7, 5)).tolist() == at_once.tolist()


@given(sizes, sizes, st.integers(0, 1000))
def test_labels_are_upsampled_as_their_indicators_would_be(
    coarse: tuple[int, int], size: tuple[int, int], seed: int
) -> None:
    labels = np.random.default_rng(seed).integers(0, 4, coarse)
    shares = one_hot(torch.from_numpy(labels), 4).permute(2, 0, 1)[None].double()
    truth = interpolate(shares, size=size, mode="bilinear", align_corners=False)[0]
    chosen = torch.from_numpy(upsample_labels(labels, size).astype(np.int64))
    torch.testing.assert_close(truth.gather(0, chosen[None])[0], truth.max(0).values, atol=1e-6, rtol=0)


def test_upsampling_in_strips_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.random.default_rng(0).integers(0, 4, (5, 6))
    at_once = upsample_labels(labels, (23, 31))
    monkeypatch.setattr(refine, "_SCORES_AT_ONCE", 1000)
    assert upsample_labels(labels, (23, 31)).tolist() == at_once.tolist()


def test_a_diagonal_border_becomes_a_line_and_not_stairs() -> None:
    fine = upsample_labels(np.triu(np.ones((3, 3), int)), (30, 30))
    border = fine.sum(1)[10:25]
    assert set(np.diff(border.astype(int)).tolist()) <= {0, -1, -2}
