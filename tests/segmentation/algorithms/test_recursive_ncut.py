from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders.graphs import TWO_PAIRS, block_affinity, block_walk, random_walk
from walkcut.errors import SegmentationError
from walkcut.hierarchy.hierarchy import renumber
from walkcut.segmentation.algorithms.ncut import (
    Cut,
    best_cut,
    dot_affinity,
    fiedler_vector,
    walk_affinity,
    walk_vector,
)
from walkcut.segmentation.algorithms.recursive_ncut import (
    Affinity,
    FixedThreshold,
    ManC,
    ScaledMinCut,
    StoppingRule,
    cut_graph,
    man_c_threshold,
    recursive_ncut,
)

GROUPS = [20, 17, 12, 9]
TRUTH = np.repeat(np.arange(4), GROUPS)
# Of two pairs, as its best cut: 4 nodes, 6 edges that weigh 12, a cut that weighs 4 and costs 2/3.
TWO_PAIRS_CUT = best_cut(TWO_PAIRS, fiedler_vector(TWO_PAIRS))


def test_the_man_c_threshold_by_hand() -> None:
    assert TWO_PAIRS_CUT is not None
    assert man_c_threshold(TWO_PAIRS_CUT) == 4 * 12 / (2 * 6)
    no_edges = Cut(torch.tensor([True, False]), ncut=0.0, weight=0.0, total=0.0, edges=0)
    assert man_c_threshold(no_edges) == 0


def test_on_a_complete_graph_the_man_c_threshold_is_the_papers_limit() -> None:
    A = dot_affinity(block_walk(GROUPS))
    cut = best_cut(A, fiedler_vector(A))
    assert cut is not None
    assert man_c_threshold(cut) == pytest.approx(cut.total / (len(cut.side) - 1))


@pytest.mark.parametrize(
    ("rule", "scale", "is_accepted"),
    [
        (FixedThreshold(0.67), 1, True),
        (FixedThreshold(0.66), 1, False),
        (ManC(), 1, True),  # 2/3 against 4
        (ManC(), 0.16, False),  # 2/3 against 0.64
        (ScaledMinCut(), 0.09, True),  # 1/3 against 0.36
        (ScaledMinCut(), 0.08, False),  # 1/3 against 0.32
    ],
)
def test_stopping_rules_by_hand(rule: StoppingRule, scale: float, is_accepted: bool) -> None:
    cut = best_cut(scale * TWO_PAIRS, fiedler_vector(TWO_PAIRS))
    assert cut is not None
    assert rule.accepts(cut) is is_accepted


@pytest.mark.parametrize("affinity", ["dot", "cosine", "walk"])
def test_groups_come_apart_before_anything_else(affinity: Affinity) -> None:
    leaf_of, hierarchy = recursive_ncut(block_walk(GROUPS), affinity=affinity, rule=FixedThreshold(0.6), max_leaves=12)
    automatic = renumber(hierarchy.cluster_of(~hierarchy.is_cut)[leaf_of])
    assert automatic.tolist() == TRUTH.tolist()
    assert hierarchy.leaf_count == 12
    assert (np.diff(hierarchy.costs) <= 0).all()


def test_the_walk_is_restricted_to_each_half() -> None:
    A = block_affinity([6, 5, 4], within=1.0, between=0.3)
    A[:6, 6:] /= 10
    P = A / A.sum(1, keepdim=True)
    leaf_of, hierarchy = recursive_ncut(P, affinity="walk", max_leaves=3)
    assert leaf_of.tolist() == [0] * 6 + [1] * 5 + [2] * 4
    half = P[6:, 6:] / P[6:, 6:].sum(1, keepdim=True)
    cut = best_cut(walk_affinity(half), walk_vector(half))
    assert cut is not None
    assert hierarchy.costs[0] == pytest.approx(cut.ncut, abs=1e-6)


def test_the_dot_affinity_stops_by_itself() -> None:
    leaf_of, hierarchy = recursive_ncut(block_walk(GROUPS), rule=ManC(), max_leaves=12)
    assert renumber(hierarchy.cluster_of(~hierarchy.is_cut)[leaf_of]).tolist() == TRUTH.tolist()


@settings(max_examples=20)
@given(st.permutations(range(sum(GROUPS))))
def test_a_permutation_of_nodes_permutes_the_labels(order: list[int]) -> None:
    P = block_walk(GROUPS)[order][:, order]
    leaf_of, hierarchy = recursive_ncut(P, rule=FixedThreshold(0.6), max_leaves=4)
    automatic = hierarchy.cluster_of(~hierarchy.is_cut)[leaf_of]
    assert renumber(automatic).tolist() == renumber(TRUTH[order]).tolist()


@given(st.integers(1, 20), st.integers(0, 1000), st.integers(1, 25))
def test_any_walk_gives_a_tree_within_its_bound(nodes: int, seed: int, max_leaves: int) -> None:
    leaf_of, hierarchy = recursive_ncut(random_walk(nodes, seed), max_leaves=max_leaves)
    assert hierarchy.leaf_count <= min(nodes, max_leaves)
    assert np.unique(leaf_of).tolist() == list(range(hierarchy.leaf_count))
    assert list(dict.fromkeys(leaf_of.tolist())) == list(range(hierarchy.leaf_count))


def test_accepted_cuts_come_first() -> None:
    _, hierarchy = recursive_ncut(block_walk(GROUPS), rule=FixedThreshold(0.6), max_leaves=3)
    assert hierarchy.is_cut.tolist() == [True, True]


@pytest.mark.parametrize("affinity", ["dot", "cosine", "walk"])
@pytest.mark.parametrize("P", [torch.eye(6), torch.full((6, 6), 1 / 6)], ids=["one-hot", "uniform"])
def test_extreme_attention_gives_numbers(P: torch.Tensor, affinity: Affinity) -> None:
    leaf_of, hierarchy = recursive_ncut(P, affinity=affinity)
    assert len(leaf_of) == 6
    assert np.isfinite(hierarchy.costs).all()


def test_evenly_spaced_thresholds_reach_the_sweep() -> None:
    P = block_affinity([5, 4, 3])
    P = P / P.sum(1, keepdim=True)
    _, hierarchy = recursive_ncut(P, max_leaves=2, thresholds=1)
    vector = fiedler_vector(dot_affinity(P))
    cut = best_cut(dot_affinity(P), vector, thresholds=1)
    assert cut is not None
    assert hierarchy.costs.tolist() == pytest.approx([cut.ncut])


def test_a_tree_without_leaves_is_refused() -> None:
    with pytest.raises(SegmentationError, match="at least 1 leaf, not 0"):
        recursive_ncut(torch.eye(2), max_leaves=0)


@pytest.mark.parametrize(("nodes", "threads"), [(20, 1), (1501, 3)])
def test_a_small_graph_is_cut_by_one_thread(nodes: int, threads: int) -> None:
    thread_counts: list[int] = []

    @dataclass(frozen=True)
    class CountingThreads:
        def accepts(self, cut: Cut) -> bool:
            thread_counts.append(torch.get_num_threads())
            return False

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        cut_graph(torch.ones(nodes, nodes) + torch.eye(nodes), rule=CountingThreads(), max_leaves=None)
        assert thread_counts == [threads]
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
