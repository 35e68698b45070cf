"""Recursive normalised cuts, top-down: stopping rules and the recursion (Shi & Malik 2000; DWC 3.4-3.5)."""

import heapq
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from walkcut.errors import SegmentationError
from walkcut.hierarchy.hierarchy import Hierarchy, Split, from_splits
from walkcut.segmentation.algorithms import ncut
from walkcut.segmentation.algorithms.ncut import Cut
from walkcut.telemetry.spans import span

Affinity = Literal["dot", "cosine", "walk"]
_SMALL_GRAPH = 1500  # nodes


@runtime_checkable
class StoppingRule(Protocol):
    """Decides whether a proposed cut is made."""

    def accepts(self, cut: Cut) -> bool:
        """Return whether to make the cut."""


@dataclass(frozen=True)
class FixedThreshold:
    """Stop where NCut exceeds `tau` (DWC 3.4)."""

    tau: float

    def accepts(self, cut: Cut) -> bool:
        """Return whether NCut is at most `tau`."""
        return cut.ncut <= self.tau


@dataclass(frozen=True)
class ManC:
    """Stop where NCut exceeds the MAN-C threshold of the subgraph (DWC 3.5, first variant)."""

    def accepts(self, cut: Cut) -> bool:
        """Return whether NCut is at most `nT / 2m`."""
        return cut.ncut <= man_c_threshold(cut)


@dataclass(frozen=True)
class ScaledMinCut:
    """Stop where the weight of the cut over that of all edges exceeds the threshold (DWC 3.5, second variant)."""

    def accepts(self, cut: Cut) -> bool:
        """Return whether `cut / T` is at most `nT / 2m`."""
        return cut.weight <= man_c_threshold(cut) * cut.total


def man_c_threshold(cut: Cut) -> float:
    """Return `nT / 2m` of the graph that was cut: `n` nodes, `m` edges, `T` their weight; `T / (n - 1)` if complete.

    The paper leaves open which edges count: here those of the subgraph, once each, without self-edges.
    """
    return len(cut.side) * cut.total / (2 * cut.edges) if cut.edges else 0.0


def recursive_ncut(
    P: Float[Tensor, "n n"],
    *,
    affinity: Affinity = "dot",
    rule: StoppingRule = ManC(),
    max_leaves: int | None = 64,
    thresholds: int | None = None,
) -> tuple[Int64[np.ndarray, " n"], Hierarchy]:
    """Cut the graph of a row-stochastic `P`, or for the affinity `walk` `P` itself (DWC 3.4); see `cut_graph`."""
    if affinity == "walk":
        with span("cut"):
            return cut_graph(P, rule=rule, max_leaves=max_leaves, thresholds=thresholds, bisect=_bisect_walk)
    with span("affinity"):
        A = {"dot": ncut.dot_affinity, "cosine": ncut.cosine_affinity}[affinity](P)
    with span("cut"):
        return cut_graph(A, rule=rule, max_leaves=max_leaves, thresholds=thresholds)


def _bisect(A: Float[Tensor, "n n"], thresholds: int | None) -> Cut | None:
    """Return the best cut of a graph by its Fiedler vector; `None` where it cannot be divided."""
    return ncut.best_cut(A, ncut.fiedler_vector(A), thresholds=thresholds) if len(A) > 1 else None


def cut_graph(
    A: Float[Tensor, "n n"],
    *,
    rule: StoppingRule,
    max_leaves: int | None,
    thresholds: int | None = None,
    bisect: Callable[[Tensor, int | None], Cut | None] = _bisect,
) -> tuple[Int64[np.ndarray, " n"], Hierarchy]:
    """Cut a graph in two by `bisect`, then the halves, to a tree of at most `max_leaves` leaves.

    Cutting continues past the stopping `rule`, so that the tree has finer levels too: accepted cuts first, and cheap
    cuts before expensive ones. With `max_leaves=None` it stops at the rule. Returns each node's leaf, numbered by
    first node, and the hierarchy of the leaves. `thresholds`: see `best_cut`. Raises `SegmentationError` if
    `max_leaves` is below 1.
    """
    if max_leaves is not None and max_leaves < 1:
        raise SegmentationError(f"a tree has at least 1 leaf, not {max_leaves}: set max_leaves to 1 or more")
    members: list[Int64[Tensor, " _"]] = []
    queue: list[tuple[bool, float, int, Cut]] = []  # is rejected by the rule, cost, node, cut
    splits: list[Split] = []

    def propose(part: Int64[Tensor, " _"], parent_cost: float) -> None:
        members.append(part)
        with _threads_for(len(part)):
            cut = bisect(A if len(part) == len(A) else A[part[:, None], part], thresholds)
            if cut is not None:
                heapq.heappush(queue, (not rule.accepts(cut), max(parent_cost, cut.ncut), len(members) - 1, cut))

    propose(torch.arange(len(A), device=A.device), 0.0)
    while queue and (len(splits) < max_leaves - 1 if max_leaves is not None else not queue[0][0]):
        is_rejected, cost, node, cut = heapq.heappop(queue)
        splits.append((node, cost, not is_rejected))
        propose(members[node][cut.side], cost)
        propose(members[node][~cut.side], cost)
    inner = {node for node, _, _ in splits}
    leaves = sorted(set(range(len(members))) - inner, key=lambda node: int(members[node][0]))
    leaf_of = np.empty(len(A), np.int64)
    for leaf, node in enumerate(leaves):
        leaf_of[members[node].numpy(force=True)] = leaf
    return leaf_of, from_splits(splits, leaves)


@contextmanager
def _threads_for(nodes: int) -> Iterator[None]:
    """Use one thread for a small graph: its steps are too short to gain from more."""
    threads = torch.get_num_threads()
    if nodes <= _SMALL_GRAPH:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _bisect_walk(P: Float[Tensor, "n n"], thresholds: int | None) -> Cut | None:
    """Return the best cut of a walk restricted to these patches (DWC 3.2); a row of zeros becomes a self-loop."""
    if len(P) < 2:
        return None
    staying = P.sum(1, keepdim=True)
    loops = torch.eye(len(P), dtype=P.dtype, device=P.device)
    P = torch.where(staying > 0, P / staying.clamp_min(torch.finfo(P.dtype).tiny), loops)
    return ncut.best_cut(ncut.walk_affinity(P), ncut.walk_vector(P), thresholds=thresholds)
