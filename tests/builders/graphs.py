"""Small graphs whose cuts are known."""

from collections.abc import Sequence

import torch
from torch import Tensor


def block_affinity(sizes: Sequence[int], *, within: float = 1.0, between: float = 0.02, noise: float = 0.1) -> Tensor:
    """Groups of nodes with strong edges within and weak ones between, and a little noise, always the same."""
    group = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    speckle = torch.rand(len(group), len(group), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return torch.where(group[:, None] == group, within, between) + noise * (speckle + speckle.T) / 2


def block_walk(sizes: Sequence[int]) -> Tensor:
    """A row-stochastic walk that rarely leaves its group; not symmetric, since the groups differ in size."""
    A = block_affinity(sizes)
    return A / A.sum(1, keepdim=True)


def random_walk(nodes: int, seed: int) -> Tensor:
    """A row-stochastic matrix of random numbers."""
    A = torch.rand(nodes, nodes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return A / A.sum(1, keepdim=True)


def ncut_cost(A: Tensor, side: Tensor) -> float:
    """`cut(S, S̄) / assoc(S, V) + cut(S, S̄) / assoc(S̄, V)` by the formula (DWC Eq. 2)."""
    A = A.double()
    cut = A[side][:, ~side].sum()
    return float(cut / A[side].sum() + cut / A[~side].sum())


# Two pairs of nodes: strong edges within (4), weak ones between (1), no self-edges.
TWO_PAIRS = torch.tensor(
    [[0, 4, 1, 1], [4, 0, 1, 1], [1, 1, 0, 4], [1, 1, 4, 0]],
    dtype=torch.float64,
)
