"""Recursive normalised cuts, top-down: stopping rules and the recursion (Shi & Malik; DWC 3.4-3.5)."""

import heapq
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from walkcut.errors import SegmentationError
from walkcut.segmentation.graph import (
    Cut,
    best_cut,
    cosine_affinity,
    dot_affinity,
    fiedler_vector,
    walk_affinity,
    walk_vector,
)
from walkcut.segmentation.hierarchy import Hierarchy, Split, from_splits

Affinity = Literal["dot", "cosine", "walk"]


@runtime_checkable
class StoppingRule(Protocol):
    """Whether a proposed cut is carried out."""

    def wants(self, cut: Cut) -> bool:
        """True where the recursion goes on."""
        ...


@dataclass(frozen=True)
class FixedThreshold:
    """Stop where NCut exceeds `tau` (DWC 3.4)."""

    tau: float

    def wants(self, cut: Cut) -> bool:
        """NCut is at most `tau`."""
        return cut.ncut <= self.tau


@dataclass(frozen=True)
class ManC:
    """Stop where NCut exceeds the MAN-C threshold of the subgraph (DWC 3.5, first variant)."""

    def wants(self, cut: Cut) -> bool:
        """NCut is at most `nT / 2m`."""
        return cut.ncut <= man_c_threshold(cut)


@dataclass(frozen=True)
class ScaledMinCut:
    """Stop where the cut's weight, as a part of all edges' weight, exceeds the threshold (DWC 3.5, second variant)."""

    def wants(self, cut: Cut) -> bool:
        """`cut / T` is at most `nT / 2m`."""
        return cut.weight <= man_c_threshold(cut) * cut.total


def man_c_threshold(cut: Cut) -> float:
    """`nT / 2m` of the graph that was cut: `n` nodes, `m` edges, `T` their weight; `T / (n - 1)` where it is dense.

    `n`, `T` and `m` are those of the subgraph, edges count once and self-edges do not count: the paper leaves it open.
    """
    return cut.nodes * cut.total / (2 * cut.edges) if cut.edges else 0.0


def recursive_ncut(
    P: Float[Tensor, "n n"],
    *,
    affinity: Affinity = "dot",
    rule: StoppingRule = ManC(),
    max_leaves: int = 64,
    thresholds: int | None = None,
) -> tuple[Int64[np.ndarray, " n"], Hierarchy]:
    """Cut the patches of a row-stochastic `P` in two, and the halves again, to a tree of at most `max_leaves`.

    Cutting goes on past the `rule`, cuts that it wants first and cheap ones before dear ones, so that the tree answers
    every granularity. Returns each patch's leaf, numbered by first patch, and the leaves' hierarchy. `thresholds`: as
    in `best_cut`.
    """
    if max_leaves < 1:
        raise SegmentationError(f"a tree has at least 1 leaf, not {max_leaves}: raise max_leaves")
    graph = P if affinity == "walk" else {"dot": dot_affinity, "cosine": cosine_affinity}[affinity](P)
    members = [torch.arange(len(P), device=P.device)]
    queue: list[tuple[bool, float, int, Cut]] = []
    splits: list[Split] = []
    _propose(queue, 0, 0.0, _bisect(graph, affinity, thresholds), rule)
    while queue and len(splits) < max_leaves - 1:
        unwanted, cost, node, cut = heapq.heappop(queue)
        splits.append(Split(node, (len(members), len(members) + 1), cut.ncut, not unwanted))
        for side in (cut.side, ~cut.side):
            members.append(members[node][side])
            part = members[-1]
            _propose(queue, len(members) - 1, cost, _bisect(graph[part][:, part], affinity, thresholds), rule)
    return _leaves(members, splits)


def _propose(
    queue: list[tuple[bool, float, int, Cut]], node: int, floor: float, cut: Cut | None, rule: StoppingRule
) -> None:
    """Queue the cut of a node, at no less than the `floor` that the node above cost."""
    if cut is not None:
        heapq.heappush(queue, (not rule.wants(cut), max(floor, cut.ncut), node, cut))


def _bisect(graph: Float[Tensor, "n n"], affinity: Affinity, thresholds: int | None) -> Cut | None:
    """The cheapest cut of a subgraph by its own Fiedler vector; `None` for what cannot be parted."""
    if len(graph) < 2:
        return None
    if affinity != "walk":
        return best_cut(graph, fiedler_vector(graph), thresholds=thresholds)
    P = _restart(graph)
    return best_cut(walk_affinity(P), walk_vector(P), thresholds=thresholds)


def _restart(P: Float[Tensor, "n n"]) -> Float[Tensor, "n n"]:
    """A walk that never leaves these patches: rows made to sum to one again; who only ever left stays in place."""
    stays = P.sum(1, keepdim=True)
    own = torch.eye(len(P), dtype=P.dtype, device=P.device)
    return torch.where(stays > 0, P / stays.clamp_min(torch.finfo(P.dtype).tiny), own)


def _leaves(members: list[Int64[Tensor, "_"]], splits: list[Split]) -> tuple[Int64[np.ndarray, " n"], Hierarchy]:
    """Each patch's leaf, numbered by first patch, and the leaves' hierarchy."""
    inner = {split.node for split in splits}
    leaves = sorted((node for node in range(len(members)) if node not in inner), key=lambda node: int(members[node][0]))
    leaf_of = np.empty(len(members[0]), np.int64)
    for leaf, node in enumerate(leaves):
        leaf_of[members[node].cpu().numpy()] = leaf
    return leaf_of, from_splits(splits, leaves)
