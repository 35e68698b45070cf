import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from walkcut.hierarchy.hierarchy import Hierarchy, from_splits, renumber

# Leaves 0-3; 0 and 1 merge into 4, 2 and 3 into 5, these two into 6.
FOUR_LEAVES = Hierarchy(np.array([[0, 1], [2, 3], [4, 5]]), np.array([0.9, 0.5, 0.1]), np.array([False, True, True]))


def clusters(hierarchy: Hierarchy, merges: int) -> list[int]:
    return renumber(hierarchy.cluster_of(np.arange(hierarchy.leaf_count - 1) < merges)).tolist()


def test_merges_begin_with_the_finest() -> None:
    assert [clusters(FOUR_LEAVES, merges) for merges in range(4)] == [[0, 1, 2, 3], [0, 0, 1, 2], [0, 0, 1, 1], [0] * 4]


def test_merge_costs_are_those_of_the_parent() -> None:
    assert FOUR_LEAVES.merge_costs().tolist() == [0.9, 0.9, 0.5, 0.5, 0.1, 0.1, 0]


def test_pruning_a_leaf_drops_its_merge() -> None:
    pruned = FOUR_LEAVES.pruned(np.array([3, 0, 1]))
    assert pruned.merges.tolist() == [[1, 2], [3, 0]]
    assert pruned.costs.tolist() == [0.9, 0.1]
    assert pruned.is_cut.tolist() == [False, True]


def test_a_coarser_hierarchy_has_the_coarser_levels() -> None:
    leaf_of, coarser = FOUR_LEAVES.coarsened(3)
    assert leaf_of.tolist() == [0, 0, 1, 2]
    assert coarser.merges.tolist() == [[1, 2], [0, 3]]
    assert (coarser.costs.tolist(), coarser.is_cut.tolist()) == ([0.5, 0.1], [True, True])
    for max_leaves in (4, 9):
        leaf_of, same = FOUR_LEAVES.coarsened(max_leaves)
        assert leaf_of.tolist() == [0, 1, 2, 3]
        assert same.merges.tolist() == FOUR_LEAVES.merges.tolist()


def test_a_single_leaf_has_no_merges() -> None:
    alone = FOUR_LEAVES.pruned(np.array([2]))
    assert alone.leaf_count == 1
    assert alone.cluster_of(np.zeros(0, bool)).tolist() == [0]


def test_splits_become_merges_with_costs_that_rise_downwards() -> None:
    splits = [
        (0, 0.5, True),
        (1, 0.2, True),
        (2, 0.7, False),
    ]
    hierarchy = from_splits(splits, leaves=[5, 3, 6, 4])
    assert hierarchy.merges.tolist() == [[0, 2], [1, 3], [4, 5]]
    assert hierarchy.costs.tolist() == [0.7, 0.5, 0.5]
    assert hierarchy.is_cut.tolist() == [False, True, True]


def test_nothing_is_cut_below_a_rejected_split() -> None:
    splits = [(0, 0.5, False), (1, 0.6, True)]
    assert from_splits(splits, leaves=[2, 3, 4]).is_cut.tolist() == [False, False]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=30))
def test_renumbering_keeps_the_partition_and_counts_from_first_appearance(labels: list[int]) -> None:
    numbered = renumber(np.array(labels)).tolist()
    assert len(set(zip(labels, numbered, strict=True))) == len(set(labels)) == len(set(numbered))
    assert list(dict.fromkeys(numbered)) == list(range(len(set(labels))))


def test_leaves_sums_and_parents_of_nodes() -> None:
    leaves_under = [np.flatnonzero(FOUR_LEAVES.leaves_under(node)).tolist() for node in range(7)]
    assert leaves_under == [[0], [1], [2], [3], [0, 1], [2, 3], [0, 1, 2, 3]]
    assert FOUR_LEAVES.subtree_sums(np.array([1, 2, 4, 8])).tolist() == [1, 2, 4, 8, 3, 12, 15]
    assert FOUR_LEAVES.parents().tolist() == [4, 4, 5, 5, 6, 6, 6]
