"""Hierarchies: how the leaves of one image merge, from the finest partition to the whole image."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

Split = tuple[int, float, bool]  # node, cost, and whether the stopping rule accepts it


@dataclass(frozen=True)
class Hierarchy:
    """Binary tree over `k` leaves, as its `m = k - 1` merges in order, finest first; it has `n = k + m` nodes.

    Leaves are the nodes `0 … k - 1`, and row `i` of `merges` names the two nodes that merge into node `k + i`.
    `costs[i]` is the cost of cutting node `k + i` in two again, low where its halves differ clearly; costs never rise
    along the rows, so every prefix of rows is a level and levels are nested.
    `is_cut[i]` says whether the method's own rule cuts node `k + i`, which implies that it cuts all nodes above.
    """

    merges: Int64[np.ndarray, "m 2"]
    costs: Float64[np.ndarray, " m"]
    is_cut: Bool[np.ndarray, " m"]

    @property
    def leaf_count(self) -> int:
        """The number of leaves, at least 1."""
        return len(self.merges) + 1

    def cluster_of(self, merged: Bool[np.ndarray, " m"]) -> Int64[np.ndarray, " k"]:
        """Return the node of each leaf after the `merged` rows; a merged row's inner descendants must be merged too."""
        cluster = np.arange(2 * self.leaf_count - 1)
        for row in reversed(range(len(merged))):
            if merged[row]:
                cluster[self.merges[row]] = cluster[self.leaf_count + row]
        return cluster[: self.leaf_count]

    def leaves_under(self, node: int) -> Bool[np.ndarray, " k"]:
        """Return which leaves belong to a node."""
        return self.cluster_of(np.arange(self.leaf_count - 1) <= node - self.leaf_count) == node

    def subtree_sums(self, amounts: Int64[np.ndarray, " k"]) -> Int64[np.ndarray, " n"]:
        """Return for each node the sum of its leaves' amounts."""
        sums = np.concatenate([amounts, np.zeros(self.leaf_count - 1, np.int64)])
        for row, pair in enumerate(self.merges):
            sums[self.leaf_count + row] = sums[pair].sum()
        return sums

    def parents(self) -> Int64[np.ndarray, " n"]:
        """Return each node's parent; the root is its own."""
        parent = np.arange(2 * self.leaf_count - 1)
        parent[self.merges] = self.leaf_count + np.arange(self.leaf_count - 1)[:, None]
        return parent

    def merge_costs(self) -> Float64[np.ndarray, " n"]:
        """Return for each node the cost of cutting it from its sibling; 0 for the root."""
        costs = np.zeros(2 * self.leaf_count - 1)
        costs[self.merges] = self.costs[:, None]
        return costs

    def coarsened(self, max_leaves: int) -> tuple[Int64[np.ndarray, " k"], "Hierarchy"]:
        """Merge the finest rows until `max_leaves` are left; return each leaf's new leaf, and their hierarchy."""
        cluster_of = self.cluster_of(np.arange(self.leaf_count - 1) < self.leaf_count - max_leaves)
        _, first = np.unique(cluster_of, return_index=True)
        return renumber(cluster_of), self.pruned(np.sort(first))

    def pruned(self, kept: Int64[np.ndarray, " l"]) -> "Hierarchy":
        """Return the hierarchy of the leaves `kept` alone, renumbered `0, 1, …` in the order given."""
        new_node = np.full(2 * self.leaf_count - 1, -1)
        new_node[kept] = np.arange(len(kept))
        rows: list[int] = []
        for row, (left, right) in enumerate(self.merges):
            if new_node[left] >= 0 and new_node[right] >= 0:
                new_node[self.leaf_count + row] = len(kept) + len(rows)
                rows.append(row)
            else:
                new_node[self.leaf_count + row] = max(new_node[left], new_node[right])
        return Hierarchy(new_node[self.merges[rows]].reshape(-1, 2), self.costs[rows], self.is_cut[rows])


def from_splits(splits: Sequence[Split], leaves: Sequence[int]) -> Hierarchy:
    """Return the hierarchy of a top-down recursion from node 0, whose split `i` makes the nodes `2i + 1` and `2i + 2`.

    `leaves` lists the nodes that were not split, in their order in the hierarchy. Costs are made monotone: a node costs
    at least as much as the nodes above it. `is_cut` holds where the rule accepted a split and all splits above it.
    """
    costs, accepted = np.zeros(2 * len(leaves) - 1), np.full(2 * len(leaves) - 1, fill_value=True)
    for row, (node, cost, is_accepted) in enumerate(splits):
        family = [node, 2 * row + 1, 2 * row + 2]
        costs[family] = max(costs[node], cost)
        accepted[family] = accepted[node] and is_accepted
    nodes = np.array([node for node, _, _ in splits], np.int64)
    finest_first = np.argsort(costs[nodes], kind="stable")[::-1]
    nodes = nodes[finest_first]
    new_node = np.empty(len(costs), np.int64)
    new_node[[*leaves, *nodes]] = np.arange(len(costs))
    halves = 2 * finest_first[:, None] + [1, 2]
    return Hierarchy(np.sort(new_node[halves], 1), costs[nodes], accepted[nodes])


def renumber(labels: Int64[np.ndarray, "*shape"]) -> Int64[np.ndarray, "*shape"]:
    """Return the partition with labels `0, 1, …` in order of first appearance."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse].reshape(labels.shape)
