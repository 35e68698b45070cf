"""DiffSeg: attention maps merged by divergence until one map is left per object (Tian et al., CVPR 2024).

The equations are the paper's; what it leaves open follows the authors' published program (google/diffseg), except that
divergences are computed in single precision and more. In half precision, theirs, entries below 3e-8 are zeros, a map
with a zero is unlike every map, itself included, and its anchor is lost.
"""

from collections.abc import Sequence
from math import isqrt

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from walkcut.errors import SegmentationError
from walkcut.segmentation.attention import aggregate
from walkcut.segmentation.baselines import lloyd
from walkcut.segmentation.refine import strongest


def diffseg(
    maps: Sequence[Float[Tensor, "_ _"]],
    *,
    threshold: float,
    rounds: int = 3,
    anchors: int = 16,
    size: tuple[int, int],
    grids: Sequence[tuple[int, int]] | None = None,
    refine: bool = False,
) -> Int64[Tensor, "y x"]:
    """The segment of each pixel of a picture of `size`, from row-stochastic attention maps of one or more levels.

    `threshold` is the divergence below which maps merge (the paper: 1.1 for COCO-Stuff, 0.9 for Cityscapes, 1 when in
    doubt), `anchors` their number along each side. `grids` holds the height and width of each map's grid; without it
    grids are square. `refine` adds the authors' K-means. Raises `SegmentationError` for what cannot be segmented.
    """
    grids = [_square(weights) for weights in maps] if grids is None else grids
    # The finest grid; taken side by side it is never coarser than any level, so that no map loses weight.
    grid = (max((height for height, _ in grids), default=0), max((width for _, width in grids), default=0))
    P = aggregate([_distributions(weights) for weights in maps], grids, grid)
    proposals = merge_attention(P, anchor_points(grid, anchors), threshold=threshold, rounds=rounds)
    if refine:
        proposals = refine_by_kmeans(P, proposals)
    return strongest(proposals.unflatten(1, grid), size)


def anchor_points(grid: tuple[int, int], anchors: int) -> Int64[Tensor, " a"]:
    """Patches of an evenly spaced, centred lattice of `anchors` × `anchors` points, fewer where a side is shorter.

    As in the authors' program the spacing is whole: `(side - 1) // (anchors - 1)`.
    """
    if anchors < 1:
        raise SegmentationError(f"DiffSeg starts from at least 1 anchor along each side, not {anchors}")
    y, x = (_evenly_spaced(side, min(anchors, side)) for side in grid)
    return (y[:, None] * grid[1] + x).flatten()


def merge_attention(
    P: Float[Tensor, "n n"], points: Int64[Tensor, " a"], *, threshold: float, rounds: int = 3
) -> Float[Tensor, "k n"]:
    """Object proposals: the maps at the anchor `points` merged with those like them, in so many `rounds` (Sec. 3.2)."""
    if not 0 < threshold < torch.inf:
        raise SegmentationError(f"maps merge below a divergence that is finite and above 0, not {threshold}")
    if rounds < 1:
        raise SegmentationError(f"DiffSeg merges in at least 1 round, not {rounds}")
    proposals = _means(P, _alike(P, points, threshold))
    for _ in range(rounds - 1):
        every = torch.arange(len(proposals))
        proposals = _means(proposals, _greedy(_alike(proposals, every, threshold)))
    return proposals


def divergence(P: Float[Tensor, "a n"], Q: Float[Tensor, "b n"]) -> Float[Tensor, "a b"]:
    """`D(p, q) = ½ (KL(p‖q) + KL(q‖p))` of all rows of `P` and `Q` (Eq. 5).

    `KL(p‖q) = Σ p log p − p · log q`, so two matrix products give all pairs. Zeros count as the smallest normal number
    in the logarithm: `0 log 0` is 0 as it should be, and maps apart are far apart (about 87) instead of infinitely.
    """
    tiny = torch.finfo(P.dtype).tiny
    log_p, log_q = P.clamp_min(tiny).log(), Q.clamp_min(tiny).log()
    p_log_p, q_log_q = (P * log_p).sum(1), (Q * log_q).sum(1)
    return (p_log_p[:, None] - P @ log_q.T + q_log_q - log_p @ Q.T) / 2


def refine_by_kmeans(P: Float[Tensor, "n n"], proposals: Float[Tensor, "k n"]) -> Float[Tensor, "m n"]:
    """The mean maps of the clusters that K-means finds from the proposals: the authors' refinement of borders."""
    cluster, means = lloyd(P, proposals)
    return means[cluster.unique()]


def _alike(P: Float[Tensor, "n m"], points: Int64[Tensor, " a"], threshold: float) -> Bool[Tensor, "a n"]:
    """Which rows of `P` are less than `threshold` from those at `points`."""
    near = divergence(P[points], P) < threshold
    near[torch.arange(len(points)), points] = True  # rounding must not part a map from itself
    return near


def _greedy(near: Bool[Tensor, "k k"]) -> Bool[Tensor, "m k"]:
    """The rows of those proposals that start a union: in order, all that no earlier one has taken in.

    As in the authors' program one taken in starts none, but it may still count in later unions.
    """
    close = near.cpu()
    free, starts = torch.ones(len(close), dtype=torch.bool), []
    for row in range(len(close)):
        if free[row]:
            starts.append(row)
            free &= ~close[row]
    return near[starts]


def _means(P: Float[Tensor, "n m"], chosen: Bool[Tensor, "k n"]) -> Float[Tensor, "k m"]:
    """The mean of the `chosen` rows of `P`."""
    return (chosen.to(P) @ P) / chosen.sum(1, keepdim=True)


def _distributions(weights: Float[Tensor, "n n"]) -> Float[Tensor, "n n"]:
    """Rows that sum to one, in single precision or more; a patch that looks nowhere looks everywhere alike."""
    weights = weights.to(torch.promote_types(weights.dtype, torch.float32))
    total = weights.sum(1, keepdim=True)
    if not bool(torch.isfinite(total).all()) or float(weights.min()) < 0:
        raise SegmentationError("attention must be finite and not negative: check the model's precision")
    return torch.where(total > 0, weights / total, 1 / len(weights))


def _square(weights: Float[Tensor, "n n"]) -> tuple[int, int]:
    """The square grid of a map."""
    side = isqrt(len(weights))
    if side * side != len(weights):
        raise SegmentationError(f"a map of {len(weights)} patches is no square grid: pass grids=[(height, width), ...]")
    return side, side


def _evenly_spaced(side: int, points: int) -> Int64[Tensor, " p"]:
    """So many points on a side, evenly spaced by a whole step and centred."""
    step = (side - 1) // (points - 1) if points > 1 else 0
    return (side - 1 - step * (points - 1)) // 2 + step * torch.arange(points)
