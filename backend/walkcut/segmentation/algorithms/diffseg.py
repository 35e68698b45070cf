"""DiffSeg: attention maps merged by divergence until one map is left per object (Tian et al., CVPR 2024).

The equations are the paper's; what it leaves open follows the authors' published program (google/diffseg), except that
divergences are computed in single precision and more. Theirs are computed in half precision, where entries below 3e-8
are zeros; a map with a zero is then unlike every map, itself included, and an anchor there is lost. `half_precision`
does the same, for comparison with published numbers.
"""

from collections.abc import Sequence
from math import isqrt

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn.functional import one_hot

from walkcut.errors import SegmentationError
from walkcut.segmentation.algorithms.clustering import kmeans_clusters
from walkcut.segmentation.algorithms.random_walk import aggregate
from walkcut.segmentation.algorithms.upsampling import upsampled_argmax


def diffseg(
    maps: Sequence[Float[Tensor, "_ _"]],
    *,
    threshold: float,
    rounds: int = 3,
    anchors: int = 16,
    size: tuple[int, int],
    grids: Sequence[tuple[int, int]] | None = None,
    refine: bool = False,
    half_precision: bool = False,
) -> Int64[Tensor, "y x"]:
    """The segment of each pixel of an image of `size` (height, width), from attention maps of one or more levels.

    Segments are numbered from 0 without gaps. `grids` holds the height and width of each map's grid; without it grids
    are square. For maps see `aggregate`, for the settings `object_proposals`. Raises `SegmentationError` for what
    cannot be segmented.
    """
    grids = [_square(weights) for weights in maps] if grids is None else grids
    # The finest grid; taken side by side it is never coarser than any level, so that no map loses weight.
    grid = (max((height for height, _ in grids), default=0), max((width for _, width in grids), default=0))
    proposals = object_proposals(
        aggregate(maps, grids, grid),
        grid,
        threshold=threshold,
        rounds=rounds,
        anchors=anchors,
        refine=refine,
        half_precision=half_precision,
    )
    return upsampled_argmax(proposals.unflatten(1, grid), size).unique(return_inverse=True)[1]


def object_proposals(
    P: Float[Tensor, "n n"],
    grid: tuple[int, int],
    *,
    threshold: float,
    rounds: int = 3,
    anchors: int = 16,
    refine: bool = False,
    half_precision: bool = False,
) -> Float[Tensor, "k n"]:
    """A map for each object, from the aggregated attention `P` on `grid` (height, width).

    `threshold` is the divergence below which maps merge (the paper: 1.1 for COCO-Stuff, 0.9 for Cityscapes, 1 when in
    doubt), `anchors` their number along each side, `rounds` how often they merge. `refine` adds the authors' K-means.
    `half_precision` loses maps as the authors' program does: for comparison only.
    """
    points = anchor_points(grid, anchors)
    proposals = merge_attention(P, points, threshold=threshold, rounds=rounds, half_precision=half_precision)
    return refine_by_kmeans(P, proposals) if refine else proposals


def anchor_points(grid: tuple[int, int], anchors: int) -> Int64[Tensor, " a"]:
    """Patches of an evenly spaced, centred lattice of `anchors` × `anchors` points, fewer where a side is shorter.

    As in the authors' program the spacing is whole: `(side - 1) // (anchors - 1)`.
    """
    if anchors < 1:
        raise SegmentationError(f"DiffSeg starts from at least 1 anchor along each side, not {anchors}")
    y, x = (_evenly_spaced(side, min(anchors, side)) for side in grid)
    return (y[:, None] * grid[1] + x).flatten()


def merge_attention(
    P: Float[Tensor, "n n"],
    points: Int64[Tensor, " a"],
    *,
    threshold: float,
    rounds: int = 3,
    half_precision: bool = False,
) -> Float[Tensor, "k n"]:
    """Object proposals: the maps at the anchor `points` merged with those like them, in so many `rounds` (Sec. 3.2).

    With `half_precision`, raises `SegmentationError` where all anchors are lost.
    """
    if not 0 < threshold < torch.inf:
        raise SegmentationError(f"maps merge below a divergence that is finite and above 0, not {threshold}")
    if rounds < 1:
        raise SegmentationError(f"DiffSeg merges in at least 1 round, not {rounds}")
    alike = _similar_in_half_precision if half_precision else _similar
    proposals = _means(P, alike(P, points, threshold))
    for _ in range(rounds - 1):
        every = torch.arange(len(proposals))
        proposals = _means(proposals, _greedy(_similar(proposals, every, threshold)))
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
    """Return the mean maps of the K-means clusters that start from the proposals: the authors' refinement of borders.

    Raises `SettingsError` without scikit-learn.
    """
    members = one_hot(kmeans_clusters(P, len(proposals), init=proposals), len(proposals)).T.bool()
    return _means(P, members[members.any(1)])


def _similar(P: Float[Tensor, "n m"], points: Int64[Tensor, " a"], threshold: float) -> Bool[Tensor, "a n"]:
    """Which rows of `P` are less than `threshold` from those at `points`."""
    near = divergence(P[points], P) < threshold
    near[torch.arange(len(points)), points] = True  # rounding must not part a map from itself
    return near


def _similar_in_half_precision(
    P: Float[Tensor, "n n"], points: Int64[Tensor, " a"], threshold: float
) -> Bool[Tensor, "b n"]:
    """The same for the anchors that are left where entries are rounded to half precision and a zero parts from all."""
    rounded = P.half().to(P)
    whole = (rounded > 0).all(1)
    points = points.to(P.device)[whole[points]]
    if len(points) == 0:
        raise SegmentationError("all anchors are lost: attention this sharp needs half_precision=False")
    return _similar(rounded, points, threshold) & whole


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
