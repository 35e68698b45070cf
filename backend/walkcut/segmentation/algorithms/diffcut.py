"""DiffCut: recursive normalised cuts of features, and concept assignment (Couairon et al. 2024)."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import normalize

from walkcut.errors import SegmentationError
from walkcut.segmentation.algorithms.ncut import best_cut, fiedler_vector, patch_features
from walkcut.segmentation.algorithms.recursive_ncut import FixedThreshold, cut_graph
from walkcut.segmentation.algorithms.upsampling import Size, leaf_score_maps, upsampled_argmax


def diffcut(
    features: Float[Tensor, "h w c"],
    *,
    threshold: float = 0.5,
    exponent: float = 10,
    thresholds: int = 100,
    size: Size,
    drop_zeros: bool = False,
) -> Int64[Tensor, "y x"]:
    """Return the segment of each pixel of an image of `size` (height, width), numbered from 0 without gaps.

    This is the reference that the paper's program is compared with; segmenters use `methods.hierarchical.DiffCut`.
    `threshold` is the NCut in [0, 2] at which cutting stops, `exponent` sharpens the affinity (Eq. 3), and
    `thresholds` evenly spaced values are tried for each cut. `drop_zeros`, for comparison with published numbers only,
    excludes patches with an affinity of exactly zero from all cuts but the first, as the authors' program does. Raises
    `SegmentationError` for features that are not finite and an exponent that is not positive.

    >>> features = torch.eye(2)[torch.tensor([[0, 0, 1, 1]])]  # one row of four patches, of two kinds
    >>> diffcut(features, size=(1, 8)).tolist()
    [[0, 0, 0, 0, 1, 1, 1, 1]]
    """
    unit = normalised_patches(features)
    A = power_affinity(unit, exponent)
    rule = FixedThreshold(threshold)
    if drop_zeros:
        segments = _cut_like_the_authors(A, rule, thresholds)
    else:
        segments = torch.from_numpy(cut_graph(A, rule=rule, max_leaves=None, thresholds=thresholds)[0]).to(A.device)
    return assign_concepts(unit, segments, (features.shape[0], features.shape[1]), size)


def normalised_patches(features: Float[Tensor, "h w c"]) -> Float[Tensor, "n c"]:
    """Return the `patch_features` at unit length. Raises `SegmentationError` if not finite."""
    return normalize(patch_features(features), dim=1)


def power_affinity(unit: Float[Tensor, "n c"], exponent: float) -> Float[Tensor, "n n"]:
    """Return the affinity `W_ij = c_ij^exponent` of unit features, `c` being their cosine rescaled to [0, 1] (Eq. 3).

    All ones where all cosines are equal. Raises `SegmentationError` for an exponent that is not positive.
    """
    if not exponent > 0:
        raise SegmentationError(f"the exponent of an affinity must be positive, not {exponent}: the paper uses 10")
    cosine = unit @ unit.T
    low, high = cosine.min(), cosine.max()
    return ((cosine - low) / (high - low)) ** exponent if bool(high > low) else torch.ones_like(cosine)


def assign_concepts(
    unit: Float[Tensor, "n c"], segments: Int64[Tensor, " n"], grid: Size, size: Size
) -> Int64[Tensor, "y x"]:
    """Return for each pixel the segment whose mean unit feature has the largest product with the pixel's (DiffCut 3.3).

    As in the authors' program the mean is not normalised again. Segments are numbered from 0 without gaps; those
    without a pixel are dropped.
    """
    scores = leaf_score_maps(unit, segments, grid, normalised=False)
    return upsampled_argmax(scores, size).unique(return_inverse=True)[1]


def _cut_like_the_authors(A: Float[Tensor, "n n"], rule: FixedThreshold, thresholds: int) -> Int64[Tensor, " n"]:
    """Return the segment of each patch, where cuts after the first divide only patches without a zero affinity.

    The other patches stay on the lower side. The largest entry of the Fiedler vector is on the upper side.
    """
    is_positive, segments = (A > 0).all(1), torch.zeros(len(A), dtype=torch.int64, device=A.device)
    queue = [torch.arange(len(A), device=A.device)]
    while queue:
        members = queue.pop()
        kept = members[is_positive[members]] if bool(segments.any()) else members
        if len(kept) < 2:
            continue
        part = A[kept[:, None], kept]
        vector = fiedler_vector(part)
        cut = best_cut(part, vector * vector[vector.abs().argmax()].sign(), thresholds=thresholds)
        if cut is not None and rule.accepts(cut):
            segments[kept[~cut.side]] = segments.max() + 1
            queue += [members[segments[members] == segment] for segment in segments[members].unique()]
    return segments
