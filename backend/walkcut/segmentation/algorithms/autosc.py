"""AutoSC: spectral clustering with as many clusters as the eigengap tells (from the authors' program of DiffCut)."""

from collections.abc import Sequence

import numpy as np
import scipy.linalg
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from walkcut.errors import SegmentationError
from walkcut.segmentation.algorithms.diffcut import assign_concepts, normalised_patches, power_affinity
from walkcut.segmentation.algorithms.graph import inverse_root

_ROUNDING = 1e-5  # what eigenvalues of zero come to in single precision stays far below it


def autosc(
    features: Float[Tensor, "h w c"],
    *,
    exponents: Sequence[float] = (1, 5, 10, 15),
    most: int = 64,
    size: tuple[int, int],
) -> Int64[Tensor, "y x"]:
    """The segment of each pixel of an image of `size` (height, width), numbered from 0 without gaps.

    Of the `exponents` of the affinity (DiffCut Eq. 3) and 1 to `most` clusters, those with the largest eigengap are
    taken; clusters are found by `cluster_qr`, and pixels assigned as in `diffcut`. The eigenvectors are those of the
    exponent chosen; the authors' program takes the last one's whichever it chose. Raises `SegmentationError` for what
    cannot be segmented.
    """
    if not exponents or most < 1:
        raise SegmentationError(f"AutoSC needs an exponent and at least 1 cluster, not {list(exponents)} and {most}")
    unit = normalised_patches(features)
    best, chosen = -1.0, torch.zeros(len(unit), dtype=torch.int64)
    for exponent in exponents:
        values, vectors = smallest_eigenpairs(power_affinity(unit, exponent), most + 1)
        gap, clusters = eigengap(values)
        if gap > best:
            best, chosen = gap, torch.from_numpy(cluster_qr(vectors[:, :clusters]))
    segments = chosen.to(features.device)
    return assign_concepts(unit, segments, (features.shape[0], features.shape[1]), size)


def smallest_eigenpairs(
    A: Float[Tensor, "n n"], count: int
) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, "n m"]]:
    """The up to `count` smallest solutions of `(D - A) x = λ D x`, smallest first, `x` in columns."""
    scale = inverse_root(A.sum(1))
    similarity = (scale[:, None] * A * scale).numpy(force=True)
    wanted = len(A) - min(count, len(A)), len(A) - 1
    values, vectors = scipy.linalg.eigh(similarity, subset_by_index=wanted)
    return 1 - values[::-1], scale.numpy(force=True)[:, None] * vectors[:, ::-1]


def eigengap(values: Float[np.ndarray, " m"]) -> tuple[float, int]:
    """The largest relative gap above the `k` smallest eigenvalues `λ_0 … λ_(k-1)`, and the first `k` that has it.

    As in the authors' program the gap is `(λ_k - μ) / μ` with the mean `μ` of `λ_0 … λ_k`. It is 1 where `k` is 1 and
    at most `k`. Without a gap, all is one cluster.
    """
    means = values.cumsum() / np.arange(1, len(values) + 1)
    gaps = (values - means) / (means + _ROUNDING)
    clusters = 1 + int(gaps[1:].argmax()) if len(gaps) > 1 else 1
    return float(gaps[1:].max(initial=0)), clusters


def cluster_qr(vectors: Float[np.ndarray, "n k"]) -> Int64[np.ndarray, " n"]:
    """The cluster of each row of `k` eigenvectors, from 0 (Damle, Minden & Ying 2019, algorithm 1).

    QR with column pivoting picks `k` rows that are far apart in direction, one for each cluster; the rotation nearest
    to these turns the eigenvectors into indicators of the clusters.
    """
    _, pivots = scipy.linalg.qr(vectors.T, mode="r", pivoting=True)
    rotation, _ = scipy.linalg.polar(vectors[pivots[: vectors.shape[1]]].T)
    return np.abs(vectors @ rotation).argmax(1)
