"""Attention maps read as a random walk between patches."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import interpolate

from walkcut.errors import SegmentationError


def aggregate(
    maps: Sequence[Float[Tensor, "_ _"]], grids: Sequence[tuple[int, int]], grid: tuple[int, int]
) -> Float[Tensor, "n n"]:
    """The transition matrix `P = Σ_r w_r S^(r)` on `grid`, `w_r ∝` side length (DWC 3.1, DiffSeg Eq. 2-3).

    Map `r` is row-stochastic over its own grid (height, width). Where a patch looks is upsampled bilinearly and
    normalised again; whence it looks is repeated. Raises `SegmentationError` where maps and grids do not fit.
    """
    for weights, (height, width) in zip(maps, grids, strict=True):
        if weights.shape != (height * width, height * width):
            raise SegmentationError(f"an attention map of {tuple(weights.shape)} does not fit a grid {height}×{width}")
    if not maps:
        raise SegmentationError("no attention map to aggregate: choose at least one level")
    sides = torch.tensor([(height * width) ** 0.5 for height, width in grids], dtype=torch.float64)
    shares = (sides / sides.sum()).tolist()
    total = shares[0] * _upsample_map(maps[0], grids[0], grid)
    for share, weights, own in zip(shares[1:], maps[1:], grids[1:], strict=True):
        total += share * _upsample_map(weights, own, grid)
    return total


def walk(P: Float[Tensor, "n n"], steps: int) -> Float[Tensor, "n n"]:
    """`P^k` by repeated squaring: the probabilities of `steps` steps (DWC 3.3); more steps, coarser regions."""
    if steps < 1:
        raise SegmentationError(f"a walk takes at least 1 step, not {steps}")
    return torch.linalg.matrix_power(P, steps)


def _upsample_map(weights: Float[Tensor, "m m"], own: tuple[int, int], grid: tuple[int, int]) -> Float[Tensor, "n n"]:
    """One map on a finer grid: targets bilinear and renormalised, sources repeated (DiffSeg Eq. 2)."""
    if own == grid:
        return weights
    rows = weights.unflatten(1, own)[:, None]
    targets = interpolate(rows, size=grid, mode="bilinear", align_corners=False).flatten(1)
    targets = targets / targets.sum(1, keepdim=True)
    return targets[_sources(own, grid).to(weights.device)]


def _sources(own: tuple[int, int], grid: tuple[int, int]) -> Int64[Tensor, " n"]:
    """For each patch of `grid` the patch of the grid `own` that covers its centre."""
    y, x = (
        ((torch.arange(fine, dtype=torch.float64) + 0.5) * coarse / fine).long()
        for fine, coarse in zip(grid, own, strict=True)
    )
    return (y[:, None] * own[1] + x).flatten()
