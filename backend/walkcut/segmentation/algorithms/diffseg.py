"""DiffSeg: attention maps merged by divergence until one map per object is left (Tian et al., CVPR 2024).

Equations are the paper's; what it leaves open follows the authors' program (google/diffseg), except that divergences
are computed in float32 or wider. The program uses float16, where entries below 3e-8 are zeros; a map with a zero then
differs from every map, itself included, and an anchor there is lost. `half_precision` reproduces this, for comparison
with published numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn.functional import one_hot

from walkcut.errors import SegmentationError
from walkcut.segmentation.algorithms.clustering import kmeans_clusters
from walkcut.segmentation.algorithms.random_walk import aggregate
from walkcut.segmentation.algorithms.upsampling import Size, upsampled_argmax


@dataclass(frozen=True)
class DiffSegSettings:
    """Settings of DiffSeg."""

    threshold: float = 1.0  # divergence below which maps merge; the paper: 1.1 for COCO-Stuff, 0.9 for Cityscapes
    rounds: int = 3  # of merging
    anchors: int = 16  # along each side
    refine: bool = False  # by the authors' K-means
    half_precision: bool = False  # loses maps as the authors' program does, for comparison only


def diffseg(
    maps: Sequence[Float[Tensor, "_ _"]],
    *,
    threshold: float,
    rounds: int = 3,
    anchors: int = 16,
    size: Size,
    grids: Sequence[Size] | None = None,
    refine: bool = False,
    half_precision: bool = False,
) -> Int64[Tensor, "y x"]:
    """Return the segment of each pixel of an image of `size` (height, width), from attention maps at any resolutions.

    This is the reference that the paper's program is compared with; segmenters use `methods.flat.DiffSeg`. Segments
    are numbered from 0 without gaps. `grids` holds the height and width of each map's grid, square by default. For
    `maps` see `aggregate`, for the other settings `DiffSegSettings`; out of range both raise `SegmentationError`.

    >>> attention = torch.eye(2).repeat_interleave(2, 0).repeat_interleave(2, 1) / 2  # patches 0 and 1, patches 2 and 3
    >>> diffseg([attention], grids=[(1, 4)], threshold=1, size=(1, 8)).tolist()
    [[0, 0, 0, 0, 1, 1, 1, 1]]
    """
    grids = [_square_grid(weights) for weights in maps] if grids is None else grids
    # The largest height and width: never coarser than any level, so that no map loses weight.
    grid = (max((height for height, _ in grids), default=0), max((width for _, width in grids), default=0))
    settings = DiffSegSettings(threshold, rounds, anchors, refine, half_precision)
    proposals = object_proposals(aggregate(maps, grids, grid), grid, settings)
    return upsampled_argmax(proposals.unflatten(1, grid), size).unique(return_inverse=True)[1]


def object_proposals(P: Float[Tensor, "n n"], grid: Size, settings: DiffSegSettings) -> Float[Tensor, "k n"]:
    """Return one map per object, from the aggregated attention `P` on `grid`; for errors see `merge_attention`."""
    proposals = merge_attention(P, anchor_points(grid, settings.anchors), settings)
    return refine_by_kmeans(P, proposals) if settings.refine else proposals


def anchor_points(grid: Size, anchors: int) -> Int64[Tensor, " a"]:
    """Return the patches of a centred lattice of `anchors` × `anchors` points, fewer where a side is shorter.

    As in the authors' program the spacing is an integer: `(side - 1) // (anchors - 1)`.
    """
    if anchors < 1:
        raise SegmentationError(f"DiffSeg needs at least 1 anchor along each side, not {anchors}")
    y, x = (_evenly_spaced(side, min(anchors, side)) for side in grid)
    return (y[:, None] * grid[1] + x).flatten()


def merge_attention(
    P: Float[Tensor, "n n"], points: Int64[Tensor, " a"], settings: DiffSegSettings
) -> Float[Tensor, "k n"]:
    """Return object proposals: the maps at the anchor `points`, merged with similar maps in rounds (Sec. 3.2).

    Raises `SegmentationError` for settings out of range and, with `half_precision`, where all anchors are lost.
    """
    threshold = settings.threshold
    if not 0 < threshold < torch.inf:
        raise SegmentationError(f"the divergence below which maps merge must be finite and above 0, not {threshold}")
    if settings.rounds < 1:
        raise SegmentationError(f"DiffSeg needs at least 1 round, not {settings.rounds}")
    similar = _similar_in_half_precision if settings.half_precision else _similar
    proposals = _means(P, similar(P, points, threshold))
    for _ in range(settings.rounds - 1):
        indices = torch.arange(len(proposals))
        proposals = _means(proposals, _greedy(_similar(proposals, indices, threshold)))
    return proposals


def divergence(P: Float[Tensor, "a n"], Q: Float[Tensor, "b n"]) -> Float[Tensor, "a b"]:
    """Return `D(p, q) = ½ (KL(p‖q) + KL(q‖p))` for all rows of `P` and `Q` (Eq. 5).

    `KL(p‖q) = Σ p log p − p · log q`, so two matrix products give all pairs. In the logarithm, zeros are replaced by
    the smallest normal number: `0 log 0` is 0, and disjoint maps have a divergence of about 87 instead of infinity.
    """
    tiny = torch.finfo(P.dtype).tiny
    log_p, log_q = P.clamp_min(tiny).log(), Q.clamp_min(tiny).log()
    p_log_p, q_log_q = (P * log_p).sum(1), (Q * log_q).sum(1)
    return (p_log_p[:, None] - P @ log_q.T + q_log_q - log_p @ Q.T) / 2


def refine_by_kmeans(P: Float[Tensor, "n n"], proposals: Float[Tensor, "k n"]) -> Float[Tensor, "m n"]:
    """Return the means of the K-means clusters that start from the proposals: the authors' refinement of borders."""
    members = one_hot(kmeans_clusters(P, len(proposals), init=proposals), len(proposals)).T.bool()
    return _means(P, members[members.any(1)])


def _similar(P: Float[Tensor, "n m"], points: Int64[Tensor, " a"], threshold: float) -> Bool[Tensor, "a n"]:
    """Return which rows of `P` have a divergence below `threshold` from those at `points`."""
    near = divergence(P[points], P) < threshold
    near[torch.arange(len(points)), points] = True  # despite rounding
    return near


def _similar_in_half_precision(
    P: Float[Tensor, "n n"], points: Int64[Tensor, " a"], threshold: float
) -> Bool[Tensor, "b n"]:
    """Return `_similar` of maps rounded to float16: one with a zero is similar to none, and its anchors are dropped."""
    rounded = P.half().to(P)
    is_positive = (rounded > 0).all(1)
    points = points.to(P.device)[is_positive[points]]
    if len(points) == 0:
        raise SegmentationError(
            "all anchors are lost to half precision: set half_precision=False for attention as sharp as this"
        )
    return _similar(rounded, points, threshold) & is_positive


def _greedy(near: Bool[Tensor, "k k"]) -> Bool[Tensor, "m k"]:
    """Return the rows of the proposals that start a union: in order, those that no earlier union contains.

    As in the authors' program a proposal in one union starts none itself, but may be part of later unions.
    """
    close = near.cpu()
    free, starts = torch.ones(len(close), dtype=torch.bool), []
    for row in range(len(close)):
        if free[row]:
            starts.append(row)
            free &= ~close[row]
    return near[starts]


def _means(P: Float[Tensor, "n m"], chosen: Bool[Tensor, "k n"]) -> Float[Tensor, "k m"]:
    """Return the means of the `chosen` rows of `P`."""
    return (chosen.to(P) @ P) / chosen.sum(1, keepdim=True)


def _square_grid(weights: Float[Tensor, "n n"]) -> Size:
    """Return the square grid of a map. Raises `SegmentationError` for a number of patches that is no square."""
    side = isqrt(len(weights))
    if side * side != len(weights):
        raise SegmentationError(f"{len(weights)} patches do not form a square grid: pass grids=[(height, width), ...]")
    return side, side


def _evenly_spaced(side: int, points: int) -> Int64[Tensor, " p"]:
    """Return `points` indices along a side, centred and evenly spaced by an integer."""
    step = (side - 1) // (points - 1) if points > 1 else 0
    return (side - 1 - step * (points - 1)) // 2 + step * torch.arange(points)
