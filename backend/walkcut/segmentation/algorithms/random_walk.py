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

    Row `i` of map `r` says how much patch `i` of that map's own grid (height, width) looks at each other one; a patch
    that looks nowhere looks everywhere alike. Where a patch looks is upsampled bilinearly and normalised, in single
    precision or more; whence it looks is repeated. Raises `SegmentationError` where maps and grids do not fit, and for
    entries that are negative or not finite.
    """
    _check(maps, grids)
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


def _check(maps: Sequence[Float[Tensor, "_ _"]], grids: Sequence[tuple[int, int]]) -> None:
    """Whether maps and grids fit each other, and whether entries are weights."""
    if len(maps) != len(grids):
        raise SegmentationError(f"{len(maps)} attention maps do not fit {len(grids)} grids: pass one grid for each map")
    if not maps:
        raise SegmentationError("no attention map to aggregate: choose at least one level")
    for weights, (height, width) in zip(maps, grids, strict=True):
        if weights.shape != (height * width, height * width):
            raise SegmentationError(f"an attention map of {tuple(weights.shape)} does not fit a grid {height}×{width}")
        if not bool(torch.isfinite(weights.sum(1, dtype=_precision(weights))).all()) or float(weights.min()) < 0:
            raise SegmentationError("attention must be finite and not negative: check the model's precision")


def _upsample_map(weights: Float[Tensor, "m m"], own: tuple[int, int], grid: tuple[int, int]) -> Float[Tensor, "n n"]:
    """One map on a finer grid: targets bilinear and normalised, sources repeated (DiffSeg Eq. 2)."""
    weights = _distributions(weights.to(_precision(weights)))
    if own == grid:
        return weights
    rows = weights.unflatten(1, own)[:, None]
    targets = _distributions(interpolate(rows, size=grid, mode="bilinear", align_corners=False).flatten(1))
    return targets[_sources(own, grid).to(weights.device)]


def _distributions(weights: Float[Tensor, "m n"]) -> Float[Tensor, "m n"]:
    """Rows that sum to one; a row of zeros becomes an even one."""
    total = weights.sum(1, keepdim=True)
    return torch.where(total > 0, weights / total, 1 / weights.shape[1])


def _precision(weights: Float[Tensor, "_ _"]) -> torch.dtype:
    """Single precision or more."""
    return torch.promote_types(weights.dtype, torch.float32)


def _sources(own: tuple[int, int], grid: tuple[int, int]) -> Int64[Tensor, " n"]:
    """For each patch of `grid` the patch of the grid `own` that covers its centre."""
    y, x = (
        ((torch.arange(fine, dtype=torch.float64) + 0.5) * coarse / fine).long()
        for fine, coarse in zip(grid, own, strict=True)
    )
    return (y[:, None] * own[1] + x).flatten()
