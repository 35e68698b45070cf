"""DiffCut: recursive normalised cuts of features, and concept assignment (Couairon et al. 2024)."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import normalize

from walkcut.errors import SegmentationError
from walkcut.segmentation.algorithms.graph import best_cut, fiedler_vector
from walkcut.segmentation.algorithms.ncut import FixedThreshold, cut_graph
from walkcut.segmentation.algorithms.upsampling import leaf_score_maps, upsampled_argmax


def diffcut(
    features: Float[Tensor, "h w c"],
    *,
    threshold: float = 0.5,
    exponent: float = 10,
    thresholds: int = 100,
    size: tuple[int, int],
    drop_zeros: bool = False,
) -> Int64[Tensor, "y x"]:
    """The segment of each pixel of an image of `size` (height, width), numbered from 0 without gaps.

    `threshold` is the NCut at which cutting stops, `exponent` sharpens the affinity (Eq. 3), and `thresholds` evenly
    spaced values are tried for each cut. `drop_zeros`, for comparison with published numbers only, leaves patches with
    an affinity of exactly zero out of all cuts but the first, as the authors' program does. Raises `SegmentationError`
    for what cannot be segmented.
    """
    unit = normalised_patches(features)
    A = power_affinity(unit, exponent)
    segments = (_cut_like_the_authors if drop_zeros else _cut)(A, threshold, thresholds)
    return assign_concepts(unit, segments, (features.shape[0], features.shape[1]), size)


def normalised_patches(features: Float[Tensor, "h w c"]) -> Float[Tensor, "n c"]:
    """The patches' features at length one, in single precision or more. Raises `SegmentationError`."""
    if not bool(torch.isfinite(features).all()):
        raise SegmentationError("features must be finite: check the model's precision")
    return normalize(features.flatten(0, 1).to(torch.promote_types(features.dtype, torch.float32)), dim=1)


def power_affinity(unit: Float[Tensor, "n c"], exponent: float) -> Float[Tensor, "n n"]:
    """`W_ij = (cosine, brought to [0, 1] by its extremes)^exponent` of unit features (Eq. 3).

    All ones where all features are alike. Raises `SegmentationError` for an exponent that is not positive.
    """
    if not exponent > 0:
        raise SegmentationError(f"the exponent of an affinity is positive, not {exponent}: the paper takes 10")
    cosine = unit @ unit.T
    low, high = cosine.min(), cosine.max()
    return ((cosine - low) / (high - low)) ** exponent if bool(high > low) else torch.ones_like(cosine)


def assign_concepts(
    unit: Float[Tensor, "n c"], segments: Int64[Tensor, " n"], grid: tuple[int, int], size: tuple[int, int]
) -> Int64[Tensor, "y x"]:
    """For each pixel the segment whose mean of unit features has the largest product with its own upsampled one.

    As in the authors' program the mean is not normalised again. Segments are numbered from 0 without gaps, those that
    win no pixel being left out.
    """
    return upsampled_argmax(leaf_score_maps(unit, segments, grid).scores, size).unique(return_inverse=True)[1]


def _cut(A: Float[Tensor, "n n"], threshold: float, thresholds: int) -> Int64[Tensor, " n"]:
    """The segment of each patch, numbered by first patch."""
    leaf_of, _ = cut_graph(A, rule=FixedThreshold(threshold), max_leaves=None, thresholds=thresholds)
    return torch.from_numpy(leaf_of).to(A.device)


def _cut_like_the_authors(A: Float[Tensor, "n n"], threshold: float, thresholds: int) -> Int64[Tensor, " n"]:
    """The same, but below the first cut only patches without a zero are cut; others stay on the lower side.

    The Fiedler vector's sign is such that its largest entry is on the upper side.
    """
    whole, segments = (A > 0).all(1), torch.zeros(len(A), dtype=torch.int64, device=A.device)
    queue = [torch.arange(len(A), device=A.device)]
    while queue:
        members = queue.pop()
        kept = members[whole[members]] if bool(segments.any()) else members
        if len(kept) < 2:
            continue
        part = A[kept[:, None], kept]
        vector = fiedler_vector(part)
        cut = best_cut(part, vector * vector[vector.abs().argmax()].sign(), thresholds=thresholds)
        if cut is not None and FixedThreshold(threshold).accepts(cut):
            segments[kept[~cut.side]] = segments.max() + 1
            queue += [members[segments[members] == own] for own in segments[members].unique()]
    return segments
