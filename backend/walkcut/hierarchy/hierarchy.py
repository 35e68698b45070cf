"""How the leaves of one image join, from the finest partition to the whole."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64


@dataclass(frozen=True)
class Hierarchy:
    """A binary tree over `k` leaves by its `j = k - 1` joints, finest first.

    Row `i` of `merges` names the two nodes that join into node `k + i`; leaves are `0 … k - 1`.
    `costs[i]` is the cost of cutting node `k + i` in two again (low: its halves lie far apart); costs never rise
    along the rows, so that every prefix of rows is a level and levels are nested.
    `is_cut[i]` tells whether the method's own rule cuts node `k + i` (true only where it cuts all nodes above).
    """

    merges: Int64[np.ndarray, "j 2"]
    costs: Float64[np.ndarray, " j"]
    is_cut: Bool[np.ndarray, " j"]

    @property
    def leaves(self) -> int:
        """The number of leaves, at least one."""
        return len(self.merges) + 1

    def cluster_of(self, joined: Bool[np.ndarray, " j"]) -> Int64[np.ndarray, " k"]:
        """For each leaf the node that it ends up in when the `joined` rows are carried out.

        Whoever joins a node joins all below it: `joined` must hold for the rows under a joined row as well.
        """
        top = np.arange(2 * self.leaves - 1)
        for row in reversed(range(len(joined))):
            if joined[row]:
                top[self.merges[row]] = top[self.leaves + row]
        return top[: self.leaves]

    def leaves_under(self, node: int) -> Bool[np.ndarray, " k"]:
        """Which leaves a node is made of."""
        inside = np.zeros(2 * self.leaves - 1, np.bool_)
        inside[node] = True
        for row in reversed(range(node - self.leaves + 1)):
            inside[self.merges[row]] |= inside[self.leaves + row]
        return inside[: self.leaves]

    def subtree_sums(self, amounts: Int64[np.ndarray, " k"]) -> Int64[np.ndarray, " n"]:
        """The sum of the leaves' amounts for each node."""
        sums = np.concatenate([amounts, np.zeros(self.leaves - 1, np.int64)])
        for row, pair in enumerate(self.merges):
            sums[self.leaves + row] = sums[pair].sum()
        return sums

    def parents(self) -> Int64[np.ndarray, " n"]:
        """The node above each node; the whole is above itself."""
        above = np.arange(2 * self.leaves - 1)
        above[self.merges] = self.leaves + np.arange(self.leaves - 1)[:, None]
        return above

    def merge_costs(self) -> Float64[np.ndarray, " n"]:
        """For each node what it costs to cut it from its sibling; nothing for the whole."""
        costs = np.zeros(2 * self.leaves - 1)
        costs[self.merges] = self.costs[:, None]
        return costs

    def coarsened(self, most: int) -> tuple[Int64[np.ndarray, " k"], "Hierarchy"]:
        """The finest joints carried out until `most` leaves are left: each leaf's new leaf, and their hierarchy."""
        done = max(0, self.leaves - most)
        cluster_of = self.cluster_of(np.arange(self.leaves - 1) < done)
        leaf_of = renumber(cluster_of)
        number = np.full(2 * self.leaves - 1, -1)
        number[cluster_of] = leaf_of
        number[self.leaves + done :] = self.leaves - done + np.arange(self.leaves - 1 - done)
        return leaf_of, Hierarchy(number[self.merges[done:]], self.costs[done:], self.is_cut[done:])

    def pruned(self, kept: Int64[np.ndarray, " m"]) -> "Hierarchy":
        """The hierarchy of the leaves `kept` alone, which become leaves `0, 1, …` in the order given."""
        node = np.full(2 * self.leaves - 1, -1)
        node[kept] = np.arange(len(kept))
        rows: list[int] = []
        for row, (left, right) in enumerate(self.merges):
            if node[left] >= 0 and node[right] >= 0:
                node[self.leaves + row] = len(kept) + len(rows)
                rows.append(row)
            else:
                node[self.leaves + row] = max(node[left], node[right])
        return Hierarchy(node[self.merges[rows]].reshape(-1, 2), self.costs[rows], self.is_cut[rows])


@dataclass(frozen=True)
class Split:
    """One cut of a top-down recursion: node ids in the order of making, the whole being node 0."""

    node: int
    halves: tuple[int, int]
    cost: float
    wanted: bool


def from_splits(splits: Sequence[Split], leaves: Sequence[int]) -> Hierarchy:
    """The hierarchy of a recursion whose `splits` name nodes and whose final nodes are `leaves`, in their new order.

    Costs are made monotone (a node costs at least what the nodes above it cost), and `is_cut` holds where a split and
    all splits above it were wanted by the stopping rule.
    """
    cost, wanted = {0: 0.0}, {0: True}
    for split in splits:
        cost[split.node] = max(cost[split.node], split.cost)
        wanted[split.node] &= split.wanted
        for half in split.halves:
            cost[half], wanted[half] = cost[split.node], wanted[split.node]
    ordered = sorted(enumerate(splits), key=lambda item: (cost[item[1].node], item[0]), reverse=True)
    number = {node: leaf for leaf, node in enumerate(leaves)}
    merges = []
    for _, split in ordered:
        merges.append(sorted(number[half] for half in split.halves))
        number[split.node] = len(leaves) + len(merges) - 1
    nodes = [split.node for _, split in ordered]
    return Hierarchy(
        np.array(merges, np.int64).reshape(-1, 2),
        np.array([cost[node] for node in nodes], np.float64),
        np.array([wanted[node] for node in nodes], np.bool_),
    )


def renumber(labels: Int64[np.ndarray, "*shape"]) -> Int64[np.ndarray, "*shape"]:
    """The same partition with labels `0, 1, …` in the order of first appearance."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse].reshape(labels.shape)
