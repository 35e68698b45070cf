"""The methods as the papers describe them: slow references that the fast forms are tested against.

Full eigendecompositions, one threshold after the other, features of all pixels, divergences pair by pair.
"""

from collections.abc import Sequence
from functools import reduce
from operator import itemgetter
from typing import TypeAlias

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from walkcut.backbones import ImageFeatures
from walkcut.errors import SettingsError
from walkcut.segmentation.algorithms.diffseg import anchor_points
from walkcut.segmentation.algorithms.ncut import Cut
from walkcut.segmentation.algorithms.recursive_ncut import StoppingRule
from walkcut.segmentation.methods import Method
from walkcut.segmentation.methods.flat import DiffSeg
from walkcut.segmentation.methods.hierarchical import DiffCut, NCut
from walkcut.segmentation.methods.inputs import patch_features

Size: TypeAlias = tuple[int, int]

_CHANNELS = 256  # of all pixels' features at a time, which limits the memory
REFERENCE_THRESHOLDS = 100  # unless the papers name a number


class NoReferenceError(SettingsError):
    """A method without a published form to compare with."""


def reference_labels(method: Method, features: ImageFeatures, size: Size) -> Int64[Tensor, "y x"]:
    """Return the segment of each pixel by the method's published form, cut as far as its rule allows.

    Raises `NoReferenceError` for other methods than `NCut` on an affinity, `DiffCut` and `DiffSeg`.
    """
    match method:
        case NCut(affinity=("dot" | "cosine") as affinity, walk_steps=steps, rule=rule, thresholds=thresholds):
            P, grid = reference_aggregate(features)
            F = reduce(torch.matmul, [P] * steps)
            unit = normalize(F, dim=1) if affinity == "cosine" else F
            segments = reference_partition(unit @ unit.T, rule, thresholds or REFERENCE_THRESHOLDS)
            return reference_assignment(F, segments, grid, size, normalised=True)
        case DiffCut(rule=rule, exponent=exponent, thresholds=thresholds):
            unit = normalize(patch_features(features), dim=2)
            F, grid = unit.flatten(0, 1), (unit.shape[0], unit.shape[1])
            cosine = F @ F.T
            A = ((cosine - cosine.min()) / (cosine.max() - cosine.min())) ** exponent
            segments = reference_partition(A, rule, thresholds or REFERENCE_THRESHOLDS)
            return reference_assignment(F, segments, grid, size, normalised=False)
        case DiffSeg(refine=False):
            P, grid = reference_aggregate(features)
            proposals = reference_merging(P, anchor_points(grid, method.anchors), method)
            maps = proposals.unflatten(1, grid)[None]
            return interpolate(maps, size=size, mode="bilinear", align_corners=False)[0].argmax(0)
        case _:
            raise NoReferenceError(f"{method} has no published form: compare NCut on an affinity, DiffCut or DiffSeg")


def reference_aggregate(features: ImageFeatures) -> tuple[Float[Tensor, "n n"], Size]:
    """Return the mean of all levels' maps on the finest grid, weighted by their sides (DiffSeg Eq. 2-3)."""
    grid = max((level.grid for level in features.attention_maps), key=lambda sides: sides[0] * sides[1])
    sides = [(height * width) ** 0.5 for height, width in (level.grid for level in features.attention_maps)]
    total = torch.zeros(*grid, *grid, device=features.attention_maps[0].weights.device)
    for side, level in zip(sides, features.attention_maps, strict=True):
        height, width = level.grid
        S = level.weights.reshape(height, width, height, width)
        targets = interpolate(S.flatten(0, 1)[:, None], size=grid, mode="bilinear", align_corners=False)
        targets = (targets / targets.sum((2, 3), keepdim=True)).reshape(height, width, *grid)
        repeated = targets.repeat_interleave(grid[0] // height, 0).repeat_interleave(grid[1] // width, 1)
        total += side / sum(sides) * repeated
    return total.flatten(2).flatten(0, 1), grid


def reference_partition(A: Float[Tensor, "n n"], rule: StoppingRule, thresholds: int) -> list[Int64[Tensor, " _"]]:
    """Return the nodes of each segment: repeated bisection by the second eigenvector until the rule stops it."""
    parts, segments = [torch.arange(len(A), device=A.device)], []
    while parts:
        part = parts.pop()
        cut = _best_cut(A[part][:, part], thresholds) if len(part) > 1 else None
        if cut is not None and rule.accepts(cut):
            parts += [part[cut.side], part[~cut.side]]
        else:
            segments.append(part)
    return segments


def _best_cut(A: Float[Tensor, "n n"], thresholds: int) -> Cut | None:
    """Return the cheapest cut of the second eigenvector of `(D − A) x = λ D x` at evenly spaced thresholds."""
    scale = A.sum(1).rsqrt()
    laplacian = torch.eye(len(A), device=A.device) - scale[:, None] * A * scale
    vector = scale * torch.linalg.eigh(laplacian).eigenvectors[:, 1]
    vector = vector / vector.norm()
    cuts = []
    for threshold in torch.linspace(0.99 * float(vector.min()), 0.99 * float(vector.max()), thresholds):
        side = vector <= threshold
        if bool(side.any()) and not bool(side.all()):
            weight = A[side][:, ~side].sum()
            cuts.append((float(weight / A[side].sum() + weight / A[~side].sum()), side))
    if not cuts:
        return None
    cost, side = min(cuts, key=itemgetter(0))
    edges = A.triu(1)
    return Cut(side, cost, float(A[side][:, ~side].sum()), float(edges.sum()), int((edges > 0).sum()))


def reference_assignment(
    F: Float[Tensor, "n c"], segments: Sequence[Int64[Tensor, " _"]], grid: Size, size: Size, *, normalised: bool
) -> Int64[Tensor, "y x"]:
    """Return each pixel's most similar segment, by the upsampled features of all pixels (DWC 3.6, DiffCut 3.3)."""
    means = torch.stack([F[part].mean(0) for part in segments])
    means = normalize(means, dim=1) if normalised else means
    products = torch.zeros(len(means), *size, device=F.device)
    norms = torch.zeros(size, device=F.device)
    maps = F.T.unflatten(1, grid)
    for channels, mean in zip(maps.split(_CHANNELS), means.T.split(_CHANNELS), strict=True):
        pixels = interpolate(channels[None], size=size, mode="bilinear", align_corners=False)[0]
        products += (mean.T @ pixels.flatten(1)).unflatten(1, size)
        norms += pixels.square().sum(0)
    return (products / norms.sqrt()).argmax(0)


def reference_merging(P: Float[Tensor, "n n"], points: Int64[Tensor, " a"], settings: DiffSeg) -> Float[Tensor, "k n"]:
    """Return the object proposals: anchors merge with similar maps, then with each other, one by one (DiffSeg 3.2)."""
    proposals = torch.stack([P[reference_divergence(P[point], P) < settings.threshold].mean(0) for point in points])
    for _ in range(settings.rounds - 1):
        free, merged = torch.ones(len(proposals), dtype=torch.bool), []
        for index, proposal in enumerate(proposals):
            if free[index]:
                near = reference_divergence(proposal, proposals) < settings.threshold
                merged.append(proposals[near].mean(0))
                free &= ~near.cpu()
        proposals = torch.stack(merged)
    return proposals


def reference_divergence(p: Float[Tensor, " n"], Q: Float[Tensor, "b n"]) -> Float[Tensor, " b"]:
    """Return `½ (KL(p‖q) + KL(q‖p))` of the map `p` and each map `q` in `Q` (DiffSeg Eq. 5)."""
    ratio = p.log() - Q.log()
    return ((p * ratio).sum(1) - (Q * ratio).sum(1)) / 2
