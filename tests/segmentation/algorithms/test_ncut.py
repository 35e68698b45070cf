import math

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.builders.graphs import TWO_PAIRS, block_affinity, block_walk, ncut_cost, random_walk
from walkcut.errors import SegmentationError
from walkcut.segmentation.algorithms import ncut

seeds = st.integers(0, 10_000)


def random_affinity(nodes: int, seed: int) -> Tensor:
    P = random_walk(nodes, seed)
    return P @ P.T


def test_ncut_of_two_pairs_by_hand() -> None:
    apart = torch.tensor([True, True, False, False])
    assert ncut_cost(TWO_PAIRS, apart) == pytest.approx(4 / 12 + 4 / 12)
    assert ncut_cost(TWO_PAIRS, ~apart) == pytest.approx(8 / 12)
    assert ncut_cost(TWO_PAIRS, torch.tensor([True, False, False, False])) == pytest.approx(6 / 6 + 6 / 18)


def test_the_best_cut_of_two_pairs_by_hand() -> None:
    cut = ncut.best_cut(TWO_PAIRS, ncut.fiedler_vector(TWO_PAIRS))
    assert cut is not None
    assert cut.side.tolist() in ([True, True, False, False], [False, False, True, True])
    assert (len(cut.side), cut.edges, cut.total, cut.weight) == (4, 6, 12, 4)
    assert cut.ncut == pytest.approx(2 / 3)


@given(st.integers(2, 9), seeds)
def test_ncut_is_between_zero_and_two(nodes: int, seed: int) -> None:
    side = torch.arange(nodes) < 1 + seed % (nodes - 1)
    assert 0 <= ncut_cost(random_affinity(nodes, seed), side) <= 2


@given(st.integers(2, 24), seeds)
def test_the_sweep_finds_what_brute_force_finds(nodes: int, seed: int) -> None:
    A, vector = random_affinity(nodes, seed), random_walk(nodes, seed + 1)[0]
    cut = ncut.best_cut(A, vector)
    assert cut is not None
    by_hand = [ncut_cost(A, vector <= value) for value in vector.sort().values[:-1]]
    assert cut.ncut == pytest.approx(min(by_hand))
    assert cut.ncut == pytest.approx(ncut_cost(A, cut.side))
    assert cut.weight == pytest.approx(float(A[cut.side][:, ~cut.side].sum()))


@given(st.integers(2, 24), seeds)
def test_evenly_spaced_thresholds_are_those_of_the_papers(nodes: int, seed: int) -> None:
    A, vector = random_affinity(nodes, seed), random_walk(nodes, seed + 1)[0] - 1 / nodes
    cut = ncut.best_cut(A, vector, thresholds=5)
    assert cut is not None
    values = 0.99 * np.linspace(float(vector.min()), float(vector.max()), 5)
    assert cut.ncut == pytest.approx(min(ncut_cost(A, vector <= value) for value in values))


def test_equal_nodes_are_not_divided() -> None:
    assert ncut.best_cut(TWO_PAIRS, torch.ones(4, dtype=torch.float64)) is None


@pytest.mark.parametrize("nodes", [2, 5, 47, 60, 200])
def test_lanczos_agrees_with_the_full_decomposition(nodes: int) -> None:
    A = random_affinity(nodes, nodes) + block_affinity([nodes // 2, nodes - nodes // 2])
    degree = A.sum(1).numpy()
    _, vectors = scipy.linalg.eigh(np.diag(degree) - A.numpy(), np.diag(degree))
    truth = vectors[:, 1] / np.linalg.norm(vectors[:, 1])
    vector = ncut.fiedler_vector(A, tolerance=1e-10)
    assert abs(float(vector @ torch.from_numpy(truth))) == pytest.approx(1, abs=1e-8)


def test_single_precision_finds_the_same_vector() -> None:
    A = block_affinity([70, 50])
    single = ncut.fiedler_vector(A.float()).double()
    assert abs(float(single @ ncut.fiedler_vector(A, tolerance=1e-10))) == pytest.approx(1, abs=1e-5)


def test_power_iteration_finds_the_second_vector_of_a_walk() -> None:
    P = block_walk([12, 7, 5])
    values, vectors = np.linalg.eig(P.numpy())
    truth = torch.from_numpy(np.real(vectors[:, np.argsort(-np.real(values))[1]]))
    vector = ncut.walk_vector(P, tolerance=1e-12)
    assert abs(float(vector @ truth / truth.norm())) == pytest.approx(1, abs=1e-6)


def test_the_stationary_distribution_stays_as_it_is() -> None:
    P = block_walk([9, 4])
    pi = ncut.stationary(P, tolerance=1e-14)
    torch.testing.assert_close(pi @ P, pi)
    assert float(pi.sum()) == pytest.approx(1)


def test_the_ncut_of_the_flow_is_the_probability_of_leaving() -> None:
    P = block_walk([6, 3])
    side = torch.arange(9) < 6
    pi = ncut.stationary(P, tolerance=1e-14)
    leaving = [float((pi[half, None] * P[half][:, ~half]).sum() / pi[half].sum()) for half in (side, ~side)]
    assert ncut_cost(ncut.walk_affinity(P), side) == pytest.approx(sum(leaving), abs=1e-5)


def test_affinities_by_hand() -> None:
    P = torch.tensor([[0.6, 0.8], [1.0, 0.0]])
    torch.testing.assert_close(ncut.dot_affinity(P), torch.tensor([[1.0, 0.6], [0.6, 1.0]]))
    torch.testing.assert_close(ncut.cosine_affinity(2 * P), torch.tensor([[1.0, 0.6], [0.6, 1.0]]))


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0])
def test_affinities_out_of_range_are_refused(value: float) -> None:
    A = TWO_PAIRS.clone()
    A[1, 2] = value
    with pytest.raises(SegmentationError, match="finite, not negative"):
        ncut.fiedler_vector(A)


def test_a_graph_of_zeros_is_refused() -> None:
    with pytest.raises(SegmentationError, match="not all zero"):
        ncut.fiedler_vector(torch.zeros(3, 3))


def test_a_single_node_has_no_second_vector() -> None:
    with pytest.raises(SegmentationError, match="one node"):
        ncut.fiedler_vector(torch.ones(1, 1))


def test_a_node_without_edges_does_not_spoil_the_vector() -> None:
    A = torch.zeros(61, 61, dtype=torch.float64)
    A[:60, :60] = block_affinity([30, 30])
    vector = ncut.fiedler_vector(A)
    assert torch.isfinite(vector).all()
    assert (vector[:30].sign() == -vector[30:60].sign()).all()
