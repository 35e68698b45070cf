import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from tests.builders.graphs import ncut_cost
from walkcut.errors import SegmentationError
from walkcut.hierarchy.hierarchy import renumber
from walkcut.segmentation import diffcut
from walkcut.segmentation.algorithms.diffcut import _cut_like_the_authors, power_affinity
from walkcut.segmentation.algorithms.recursive_ncut import FixedThreshold, cut_graph


def scene(seed: int, *, noise: float = 0.3) -> Tensor:
    """Features (8, 10, 6) of three parts that differ in direction, not in length."""
    generator = torch.Generator().manual_seed(seed)
    part = torch.zeros(8, 10, dtype=torch.long)
    part[:, 4:], part[5:] = 1, 2
    features = torch.eye(6)[part] + noise * torch.rand(8, 10, 6, generator=generator)
    return features * (0.5 + torch.rand(8, 10, 1, generator=generator))


def cut_literally(A: Tensor, tau: float, *, drop_zeros: bool = False) -> list[Tensor]:
    """The members of each segment, by the paper's recursion with a full decomposition and a loop over thresholds.

    With `drop_zeros`, as in the authors' program, nodes with a zero stay on the lower side after the first cut.
    """

    def recurse(nodes: Tensor) -> list[Tensor]:
        kept = nodes[(A[nodes] > 0).all(1)] if drop_zeros and len(nodes) < len(A) else nodes
        if len(kept) < 2:
            return [nodes]
        W = A[kept][:, kept]
        scale = W.sum(1).rsqrt()
        vector = scale * torch.linalg.eigh(torch.eye(len(kept)) - scale[:, None] * W * scale).eigenvectors[:, 1]
        vector = vector * vector[vector.abs().argmax()].sign()
        values = torch.linspace(0.99 * float(vector.min()), 0.99 * float(vector.max()), 100)
        cost, side = min(((ncut_cost(W, vector > value), vector > value) for value in values), key=lambda pair: pair[0])
        below = nodes[~torch.isin(nodes, kept[side])]
        return recurse(kept[side]) + recurse(below) if cost <= tau else [nodes]

    return recurse(torch.arange(len(A)))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("tau", [0.3, 0.5, 0.9])
@pytest.mark.parametrize("drop_zeros", [False, True])
def test_the_fast_form_agrees_with_the_papers(seed: int, tau: float, *, drop_zeros: bool) -> None:
    features = scene(seed)
    unit = normalize(features.flatten(0, 1), dim=1)
    segments = cut_literally(power_affinity(unit, 10), tau, drop_zeros=drop_zeros)
    means = torch.stack([unit[nodes].mean(0) for nodes in segments])
    pixels = interpolate(unit.T.unflatten(1, (8, 10))[None], size=(20, 30), mode="bilinear")[0]
    truth = torch.einsum("chw,sc->shw", pixels, means).argmax(0).numpy()
    labels = diffcut(features, threshold=tau, size=(20, 30), drop_zeros=drop_zeros).numpy()
    assert (renumber(labels) == renumber(truth)).mean() > 0.99


def test_three_parts_are_three_segments() -> None:
    labels = diffcut(scene(0), size=(8, 10))
    assert labels.dtype == torch.int64
    assert len(labels.unique()) == 3
    assert labels[0, 0] != labels[0, 9] != labels[7, 5]


def test_a_higher_threshold_never_gives_fewer_segments() -> None:
    counts = [len(diffcut(scene(1, noise=1.0), threshold=tau, size=(8, 10)).unique()) for tau in (0.0, 0.5, 0.8, 1.0)]
    assert counts == sorted(counts)
    assert counts[0] == 1


def test_patches_with_a_zero_are_dropped_by_hand() -> None:
    A = torch.full((6, 6), 0.01, dtype=torch.float64)
    A[:4, :4] = 0.1
    for pair in (slice(0, 2), slice(2, 4), slice(4, 6)):
        A[pair, pair] = 1
    A[0, 4] = A[4, 0] = 0
    rule = FixedThreshold(0.5)
    assert cut_graph(A, rule=rule, max_leaves=None, thresholds=100)[0].tolist() == [0, 0, 1, 1, 2, 2]
    # Below the first cut, which parts 4 and 5 from the rest, 0 is left out; it stays with 2 and 3, which lie lower
    # than 1 alone.
    assert renumber(_cut_like_the_authors(A, rule, 100).numpy()).tolist() == [0, 1, 0, 0, 2, 2]


@pytest.mark.parametrize("drop_zeros", [False, True])
@pytest.mark.parametrize("features", [torch.zeros(3, 5, 2), torch.eye(15).unflatten(0, (3, 5)), torch.ones(1, 1, 3)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_extreme_features_are_segmented(features: Tensor, dtype: torch.dtype, *, drop_zeros: bool) -> None:
    labels = diffcut(features.to(dtype), size=(7, 6), drop_zeros=drop_zeros)
    assert labels.shape == (7, 6)
    assert labels.dtype == torch.int64
    assert labels.unique().tolist() == list(range(int(labels.max()) + 1))


@given(
    st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(1, 3)),
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.integers(0, 1000),
)
def test_any_grid_and_any_size_give_labels_without_gaps(
    shape: tuple[int, int, int], size: tuple[int, int], seed: int
) -> None:
    features = torch.randint(-1, 2, shape, generator=torch.Generator().manual_seed(seed)).float()
    for drop_zeros in (False, True):
        labels = diffcut(features, threshold=1.0, size=size, drop_zeros=drop_zeros)
        assert labels.shape == size
        assert labels.unique().tolist() == list(range(int(labels.max()) + 1))


def test_a_segment_that_wins_no_pixel_leaves_no_gap() -> None:
    assert diffcut(torch.eye(9).unflatten(0, (3, 3)), size=(2, 2)).tolist() == [[0, 1], [2, 3]]


def test_features_that_are_not_finite_are_refused() -> None:
    with pytest.raises(SegmentationError, match="features must be finite"):
        diffcut(torch.full((2, 2, 3), torch.nan), size=(2, 2))


def test_the_affinity_by_hand() -> None:
    unit = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    np.testing.assert_allclose(power_affinity(unit, 2), torch.tensor([[1, 0, 0.36], [0, 1, 0.64], [0.36, 0.64, 1]]))


def test_equal_features_are_one_segment() -> None:
    assert diffcut(torch.ones(3, 4, 5), size=(4, 4)).tolist() == [[0] * 4] * 4


def test_an_exponent_that_is_not_positive_is_refused() -> None:
    with pytest.raises(SegmentationError, match="positive, not 0"):
        diffcut(scene(0), exponent=0, size=(4, 4))
