import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import one_hot

from tests.builders.graphs import block_affinity
from walkcut.errors import SegmentationError
from walkcut.hierarchy.hierarchy import renumber
from walkcut.segmentation.algorithms.autosc import autosc, cluster_qr, eigengap, smallest_eigenpairs


def columns(parts: int, noise: float, seed: int = 0) -> Tensor:
    """Features (12, 12, 8) of `parts` vertical strips that differ in direction."""
    part = torch.arange(12) * parts // 12
    speckle = torch.randn(12, 12, 8, generator=torch.Generator().manual_seed(seed))
    return one_hot(part, 8).expand(12, 12, 8) + noise * speckle


@pytest.mark.parametrize("parts", [2, 3, 4, 6])
@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_the_number_of_parts_is_found(parts: int, noise: float) -> None:
    labels = autosc(columns(parts, noise), size=(24, 24)).numpy()
    np.testing.assert_array_equal(renumber(labels), np.tile(np.arange(24) * parts // 24, (24, 1)))


def test_the_exponent_with_the_largest_gap_is_used() -> None:
    # The noise hides the parts from exponent 1.
    features = columns(3, 0.25)
    best = autosc(features, exponents=[10], size=(12, 12))
    assert len(best.unique()) == 3
    assert len(autosc(features, exponents=[1], size=(12, 12)).unique()) == 1
    for exponents in ([1, 10], [10, 1]):
        torch.testing.assert_close(autosc(features, exponents=exponents, size=(12, 12)), best)


@pytest.mark.parametrize("slant", [0.0, 0.05])
def test_a_patch_with_almost_no_affinity_does_no_harm(slant: float) -> None:
    features = columns(2, 0.05).abs()
    features[:, 6:, 0] -= slant + 0.1
    features[5, 2] = 0
    labels = autosc(features, exponents=[15], size=(12, 12))
    labels[5, 2] = labels[0, 0]
    assert renumber(labels.numpy()).tolist() == [[0] * 6 + [1] * 6] * 12


def test_the_number_of_clusters_is_limited() -> None:
    assert len(autosc(columns(6, 0.05), max_clusters=3, size=(12, 12)).unique()) <= 3
    assert len(autosc(columns(3, 0.05), max_clusters=3, size=(12, 12)).unique()) == 3


@pytest.mark.parametrize("features", [torch.ones(3, 4, 5), torch.zeros(3, 4, 5), torch.ones(1, 1, 5)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_equal_patches_are_one_segment(features: Tensor, dtype: torch.dtype) -> None:
    labels = autosc(features.to(dtype), size=(7, 5))
    assert labels.dtype == torch.int64
    assert labels.tolist() == [[0] * 5] * 7


@given(st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 4)), st.integers(0, 1000))
def test_labels_are_without_gaps_and_the_same_each_time(shape: tuple[int, int, int], seed: int) -> None:
    features = torch.randint(-1, 2, shape, generator=torch.Generator().manual_seed(seed)).float()
    first, second = (autosc(features, size=(9, 8)) for _ in range(2))
    torch.testing.assert_close(first, second)
    assert first.unique().tolist() == list(range(int(first.max()) + 1))


def test_eigenpairs_are_the_smallest_of_the_generalised_problem() -> None:
    graph = block_affinity([4, 5, 6])
    A, D = graph.numpy(), graph.sum(1).diag().numpy()
    values, vectors = smallest_eigenpairs(graph, 4)
    np.testing.assert_allclose(values, scipy.linalg.eigh(D - A, D, eigvals_only=True)[:4], atol=1e-12)
    np.testing.assert_allclose((D - A) @ vectors, D @ vectors * values, atol=1e-12)
    assert len(smallest_eigenpairs(graph, 99)[0]) == 15


@pytest.mark.parametrize(
    ("values", "gap", "clusters"),
    [
        ([0.0, 0.0, 0.5, 0.6], 2.0, 2),  # 0.5 against a mean of 1/6
        ([0.0, 1.0, 1.0], 1.0, 1),
        ([0.0, 0.1, 0.1, 0.8], 2.2, 3),  # 0.8 against a mean of 1/4
        ([0.0, 0.0, 0.0], 0.0, 1),
        ([-1e-7, 1e-7, 1.0], 2.0, 2),
        ([0.0], 0.0, 1),
    ],
)
def test_the_eigengap_by_hand(values: list[float], gap: float, clusters: int) -> None:
    largest, count = eigengap(np.array(values))
    assert largest == pytest.approx(gap, abs=0.01)
    assert count == clusters


@given(st.lists(st.integers(1, 6), min_size=1, max_size=6), st.integers(0, 1000))
def test_rotated_indicators_are_unravelled(sizes: list[int], seed: int) -> None:
    part = np.repeat(np.arange(len(sizes)), sizes)
    rotation = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(sizes), len(sizes))))[0]
    indicators = np.eye(len(sizes))[part] / np.sqrt(sizes)
    np.testing.assert_array_equal(renumber(cluster_qr(indicators @ rotation)), part)


def test_a_row_that_points_the_other_way_is_of_the_same_cluster() -> None:
    assert renumber(cluster_qr(np.array([[1.0, 0.0], [-0.9, 0.1], [0.0, 1.0]]))).tolist() == [0, 0, 1]


@pytest.mark.parametrize(("exponents", "max_clusters"), [([], 5), ([1, 5], 0)])
def test_nothing_to_choose_from_is_refused(exponents: list[float], max_clusters: int) -> None:
    with pytest.raises(SegmentationError, match=f"at least 1 cluster, not .* and {max_clusters}"):
        autosc(torch.ones(2, 2, 3), exponents=exponents, max_clusters=max_clusters, size=(2, 2))


def test_features_that_are_not_finite_are_refused() -> None:
    with pytest.raises(SegmentationError, match="features must be finite"):
        autosc(torch.full((2, 2, 3), torch.inf), size=(2, 2))
