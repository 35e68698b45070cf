"""DiffCut: recursive normalised cuts of features, and concept assignment (Couairon et al. 2024)."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import normalize

from walkcut.errors import SegmentationError
from walkcut.segmentation.hierarchy import renumber
from walkcut.segmentation.ncut import FixedThreshold, cut_graph
from walkcut.segmentation.refine import score_leaves, strongest


def diffcut(
    features: Float[Tensor, "h w c"],
    *,
    threshold: float = 0.5,
    exponent: float = 10,
    thresholds: int = 100,
    size: tuple[int, int],
) -> Int64[Tensor, "y x"]:
    """The segment of each pixel of a picture of `size` (height, width), numbered by the first patch.

    `threshold` is the NCut at which cutting stops, `exponent` sharpens the affinity (Eq. 3), and `thresholds` evenly
    spaced values are tried for each cut. As in the authors' program, a pixel's segment is the one whose mean of unit
    features has the largest product with the upsampled unit feature: the mean is not normalised again. Not reproduced
    is that below the first cut their program leaves out patches with an affinity of exactly zero.
    """
    height, width, _ = features.shape
    unit = normalize(features.flatten(0, 1), dim=1)
    A = power_affinity(unit, exponent)
    leaf_of, hierarchy = cut_graph(A, rule=FixedThreshold(threshold), max_leaves=None, thresholds=thresholds)
    segments = torch.from_numpy(renumber(hierarchy.tops(~hierarchy.cut)[leaf_of])).to(features.device)
    return strongest(score_leaves(unit, segments, (height, width)).scores, size)


def power_affinity(unit: Float[Tensor, "n c"], exponent: float) -> Float[Tensor, "n n"]:
    """`W_ij = (cosine, brought to [0, 1] by its extremes)^exponent` of unit features (Eq. 3).

    All ones where all features are alike. Raises `SegmentationError` for an exponent that is not positive.
    """
    if not exponent > 0:
        raise SegmentationError(f"the exponent of an affinity is positive, not {exponent}: the paper takes 10")
    cosine = unit @ unit.T
    low, high = cosine.min(), cosine.max()
    return ((cosine - low) / (high - low)) ** exponent if bool(high > low) else torch.ones_like(cosine)
