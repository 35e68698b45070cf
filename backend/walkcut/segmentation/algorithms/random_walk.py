"""Attention maps as a random walk between patches."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import interpolate

from walkcut.errors import SegmentationError
from walkcut.segmentation.algorithms.upsampling import Size


def aggregate(maps: Sequence[Float[Tensor, "_ _"]], grids: Sequence[Size], grid: Size) -> Float[Tensor, "n n"]:
    """Return the transition matrix `P = Σ_r w_r S^(r)` on `grid`, `w_r ∝` side length (DWC 3.1, DiffSeg Eq. 2-3).

    Row `i` of map `r` is the attention of patch `i` of its grid (height, width) to all patches; a row of zeros counts
    as uniform. Targets (columns) are upsampled bilinearly and normalised, in float32 or wider; sources (rows) are
    repeated. Raises `SegmentationError` where maps and grids do not fit, and for entries that are negative or not
    finite.
    """
    _check(maps, grids)
    sides = torch.tensor([(height * width) ** 0.5 for height, width in grids], dtype=torch.float64)
    fractions = (sides / sides.sum()).tolist()
    total = fractions[0] * _upsample_map(maps[0], grids[0], grid)
    for fraction, weights, map_grid in zip(fractions[1:], maps[1:], grids[1:], strict=True):
        total += fraction * _upsample_map(weights, map_grid, grid)
    return total


def walk(P: Float[Tensor, "n n"], steps: int) -> Float[Tensor, "n n"]:
    """Return `P^steps`, the transition matrix of a longer walk (DWC 3.3); more steps give coarser segments."""
    if steps < 1:
        raise SegmentationError(f"a walk takes at least 1 step, not {steps}")
    return torch.linalg.matrix_power(P, steps)


def _check(maps: Sequence[Float[Tensor, "_ _"]], grids: Sequence[Size]) -> None:
    """Raise `SegmentationError` where maps and grids do not fit, or entries are negative or not finite."""
    if len(maps) != len(grids):
        raise SegmentationError(f"{len(maps)} attention maps do not fit {len(grids)} grids: pass one grid for each map")
    if not maps:
        raise SegmentationError("no attention map to aggregate: choose at least one level")
    for weights, (height, width) in zip(maps, grids, strict=True):
        if weights.shape != (height * width, height * width):
            raise SegmentationError(f"an attention map of {tuple(weights.shape)} does not fit a grid {height}×{width}")
        if not bool(torch.isfinite(weights.sum(1, dtype=_precision(weights))).all()) or float(weights.min()) < 0:
            raise SegmentationError("attention must be finite and not negative: check the model's precision")


def _upsample_map(weights: Float[Tensor, "m m"], map_grid: Size, grid: Size) -> Float[Tensor, "n n"]:
    """Return a map on a finer grid (DiffSeg Eq. 2)."""
    weights = _distributions(weights.to(_precision(weights)))
    if map_grid == grid:
        return weights
    rows = weights.unflatten(1, map_grid)[:, None]
    targets = _distributions(interpolate(rows, size=grid, mode="bilinear", align_corners=False).flatten(1))
    return targets[_sources(map_grid, grid).to(weights.device)]


def _distributions(weights: Float[Tensor, "m n"]) -> Float[Tensor, "m n"]:
    """Return rows normalised to sum to 1; a row of zeros becomes uniform."""
    total = weights.sum(1, keepdim=True)
    return torch.where(total > 0, weights / total, 1 / weights.shape[1])


def _precision(weights: Float[Tensor, "_ _"]) -> torch.dtype:
    """Return the dtype, or float32 if that is wider."""
    return torch.promote_types(weights.dtype, torch.float32)


def _sources(map_grid: Size, grid: Size) -> Int64[Tensor, " n"]:
    """Return for each patch of `grid` the patch of `map_grid` that covers its centre."""
    y, x = ((2 * torch.arange(fine) + 1) * coarse // (2 * fine) for fine, coarse in zip(grid, map_grid, strict=True))
    return (y[:, None] * map_grid[1] + x).flatten()
