"""AutoSC: spectral clustering with the number of clusters chosen by the eigengap (from DiffCut's program)."""

from collections.abc import Sequence

import numpy as np
import scipy.linalg
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from walkcut.errors import SegmentationError
from walkcut.segmentation.algorithms.diffcut import assign_concepts, normalised_patches, power_affinity
from walkcut.segmentation.algorithms.ncut import inverse_root
from walkcut.segmentation.algorithms.upsampling import Size

_ROUNDING = 1e-5  # far above the rounding errors of zero eigenvalues in single precision


def autosc(
    features: Float[Tensor, "h w c"], *, exponents: Sequence[float] = (1, 5, 10, 15), max_clusters: int = 64, size: Size
) -> Int64[Tensor, "y x"]:
    """Return the segment of each pixel of an image of `size` (height, width), numbered from 0 without gaps.

    The exponent of the affinity (DiffCut Eq. 3) and the number of clusters, 1 to `max_clusters`, are those with the
    largest eigengap; clusters are found by `cluster_qr`, and pixels assigned as in `diffcut`. The eigenvectors are
    those of the chosen exponent, whereas DiffCut's program always uses the last one's. Raises `SegmentationError` for
    settings out of range and features that are not finite.
    """
    if not exponents or max_clusters < 1:
        raise SegmentationError(
            f"AutoSC needs an exponent and at least 1 cluster, not {list(exponents)} and {max_clusters}"
        )
    unit = normalised_patches(features)
    best_gap, best = -1.0, torch.zeros(len(unit), dtype=torch.int64)
    for exponent in exponents:
        values, vectors = smallest_eigenpairs(power_affinity(unit, exponent), max_clusters + 1)
        gap, clusters = eigengap(values)
        if gap > best_gap:
            best_gap, best = gap, torch.from_numpy(cluster_qr(vectors[:, :clusters]))
    return assign_concepts(unit, best.to(features.device), (features.shape[0], features.shape[1]), size)


def smallest_eigenpairs(
    A: Float[Tensor, "n n"], count: int
) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, "n m"]]:
    """Return the smallest solutions of `(D - A) x = λ D x`, at most `count`, in ascending order; `x` in columns."""
    scale = inverse_root(A.sum(1))
    similarity = (scale[:, None] * A * scale).numpy(force=True)
    indices = len(A) - min(count, len(A)), len(A) - 1
    values, vectors = scipy.linalg.eigh(similarity, subset_by_index=indices)
    return 1 - values[::-1], scale.numpy(force=True)[:, None] * vectors[:, ::-1]


def eigengap(values: Float[np.ndarray, " m"]) -> tuple[float, int]:
    """Return the largest relative gap after the `k` smallest eigenvalues `λ_0 … λ_(k-1)`, and the first such `k`.

    As in DiffCut's program the gap is `(λ_k - μ) / μ` with the mean `μ` of `λ_0 … λ_k`. It is 1 where `k` is 1, and
    at most `k`. Without any gap, `k` is 1.
    """
    means = values.cumsum() / np.arange(1, len(values) + 1)
    gaps = (values - means) / (means + _ROUNDING)
    clusters = 1 + int(gaps[1:].argmax()) if len(gaps) > 1 else 1
    return float(gaps[1:].max(initial=0)), clusters


def cluster_qr(vectors: Float[np.ndarray, "n k"]) -> Int64[np.ndarray, " n"]:
    """Return the cluster, from 0, of each row of `k` eigenvectors (Damle, Minden & Ying 2019, algorithm 1).

    QR with column pivoting picks `k` rows that differ most in direction, one per cluster; the rotation nearest to them
    turns the eigenvectors into cluster indicators.
    """
    _, pivots = scipy.linalg.qr(vectors.T, mode="r", pivoting=True)
    rotation, _ = scipy.linalg.polar(vectors[pivots[: vectors.shape[1]]].T)
    return np.abs(vectors @ rotation).argmax(1)
