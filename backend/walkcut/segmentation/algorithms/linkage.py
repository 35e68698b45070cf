"""Merge orders for flat partitions: average linkage of the segments' mean features."""

import numpy as np
import torch
from jaxtyping import Float
from scipy.cluster.hierarchy import linkage
from torch import Tensor
from torch.nn.functional import normalize

from walkcut.errors import SegmentationError
from walkcut.hierarchy.hierarchy import Hierarchy


def average_linkage(means: Float[Tensor, "k c"]) -> Hierarchy:
    """Return the hierarchy of segments with these mean features, by average linkage of their cosines.

    A merge costs the average cosine between its halves, clipped to [0, 1]. `is_cut` is true for all merges, so that the
    granularity auto gives the segments themselves. Raises `SegmentationError` for means that are not finite.
    """
    if not bool(torch.isfinite(means).all()):
        raise SegmentationError("mean features must be finite: check the model's precision")
    unit = normalize(means.double(), dim=1).cpu()
    pairs = torch.triu_indices(len(unit), len(unit), 1)
    if pairs.numel() == 0:
        return Hierarchy(np.empty((0, 2), np.int64), np.empty(0), np.empty(0, np.bool_))
    tree = linkage((1 - unit @ unit.T)[pairs[0], pairs[1]].numpy(), "average")
    return Hierarchy(tree[:, :2].astype(np.int64), (1 - tree[:, 2]).clip(0, 1), np.full(len(tree), fill_value=True))
