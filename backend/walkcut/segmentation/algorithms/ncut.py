"""A single normalised cut of a graph: affinities, Fiedler vector and the best threshold.

A graph is its symmetric, non-negative affinity matrix `A` (n, n): entry (i, j) is the weight of the edge between
patches i and j. The diagonal, the self-edges, counts in the degrees, as it does in the papers.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from walkcut.errors import SegmentationError

_DENSE_NODES = 48  # up to which a full eigendecomposition is faster than Lanczos
_LANCZOS_STEPS = 400
_CHECK_INTERVAL = 8  # Lanczos steps
_BLOCK_ROWS = 512  # of a matrix processed at a time: saves memory, and half the work of a symmetric product
_MIN_DEGREE = 1e-6  # of the mean degree; smaller ones would amplify rounding errors


@dataclass(frozen=True)
class Cut:
    """A graph cut in two; its edges count once each, without self-edges."""

    side: Bool[Tensor, " n"]  # which nodes are in the first half
    ncut: float  # the normalised cut, in [0, 2] (DWC Eq. 2)
    weight: float  # of the edges between the halves (DWC Eq. 1)
    total: float  # weight of all edges
    edges: int  # number of edges of positive weight


def patch_features(features: Float[Tensor, "h w c"]) -> Float[Tensor, "n c"]:
    """Return a row of features for each patch, in float32 or wider. Raises `SegmentationError` if not finite."""
    if not bool(torch.isfinite(features).all()):
        raise SegmentationError("features must be finite: check the model's precision")
    return features.flatten(0, 1).to(torch.promote_types(features.dtype, torch.float32))


def dot_affinity(P: Float[Tensor, "n m"]) -> Float[Tensor, "n n"]:
    """Return `A = P Pᵀ`: how much two patches attend to the same patches (DWC 3.3). Only the upper half is computed."""
    A = P.new_empty(len(P), len(P))
    for first in range(0, len(P), _BLOCK_ROWS):
        last = first + _BLOCK_ROWS
        A[first:last, first:] = P[first:last] @ P[first:].T
        A[last:, first:last] = A[first:last, last:].T
    return A


def cosine_affinity(P: Float[Tensor, "n m"]) -> Float[Tensor, "n n"]:
    """Return `A_ij = p_i · p_j / (‖p_i‖ ‖p_j‖)`, in [0, 1] for distributions (DWC 3.3)."""
    return dot_affinity(torch.nn.functional.normalize(P, dim=1))


def walk_affinity(P: Float[Tensor, "n n"]) -> Float[Tensor, "n n"]:
    """Return `½ (Π P + Pᵀ Π)` with the stationary distribution Π: the flow of the walk along each edge.

    Its NCut is the sum of the walk's probabilities of leaving each half in one step (Meila & Shi 2001; DWC 2.2). Π is
    scaled to a mean of 1 per patch, which brings weights to the order of those of `dot_affinity`.
    """
    flow = stationary(P)[:, None] * (P * len(P))
    return (flow + flow.T) / 2


def stationary(P: Float[Tensor, "n n"], *, steps: int = 1000, tolerance: float = 1e-7) -> Float[Tensor, " n"]:
    """Return the distribution π with `π P = π`, by power iteration on the lazy walk `½ (I + P)`, which converges."""
    pi = torch.full_like(P[0], 1 / len(P))
    for _ in range(steps):
        following = (pi + pi @ P) / 2
        following = following / following.sum()
        if float((following - pi).abs().sum()) < tolerance:
            return following
        pi = following
    return pi


def fiedler_vector(A: Float[Tensor, "n n"], *, tolerance: float = 1e-5) -> Float[Tensor, " n"]:
    """Return the second generalised eigenvector of `(D − A) x = λ D x` (DWC Eq. 3), at unit length.

    Computed by Lanczos on `D^-½ A D^-½` with the known first eigenvector `D^½ 1` deflated, until the residual is below
    `tolerance` or the step limit is reached. Raises `SegmentationError` for a single node, and for affinities that are
    negative, not finite or all zero.
    """
    degree = A.sum(1)
    if len(A) < 2:
        raise SegmentationError("a graph of one node has no Fiedler vector: it needs at least two nodes")
    if not bool(torch.isfinite(degree).all()) or float(A.min()) < 0 or not float(degree.sum()) > 0:
        raise SegmentationError("affinities must be finite, not negative, and not all zero: check the image features")
    scale = inverse_root(degree)
    if len(A) <= _DENSE_NODES:
        vector = torch.linalg.eigh(scale[:, None] * A * scale).eigenvectors[:, -2]
    else:
        vector = _lanczos(A, scale, degree.sqrt() / degree.sum().sqrt(), tolerance)
    vector = scale * vector
    return vector / vector.norm()


def inverse_root(degree: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Return the diagonal of `D^-½`, with degrees clamped to a small part of their mean."""
    return degree.clamp_min(_MIN_DEGREE * float(degree.mean())).rsqrt()


def walk_vector(P: Float[Tensor, "n n"], *, steps: int = 2000, tolerance: float = 1e-6) -> Float[Tensor, " n"]:
    """Return the second right eigenvector of a row-stochastic `P`, by power iteration with one deflation (DWC 3.2).

    The first pair, `P 1 = 1` and `π P = π`, is deflated as `P − 1 πᵀ`. The lazy walk `½ (I + P)` has the same
    eigenvectors and no negative eigenvalues, so the iteration converges to the second one of `P`.
    """
    pi = stationary(P)
    vector = _start_vector(P[0])
    vector = vector - pi @ vector
    vector = vector / vector.norm()
    for _ in range(steps):
        following = (vector + P @ vector) / 2
        following = following - pi @ following
        following = following / following.norm().clamp_min(torch.finfo(P.dtype).tiny)
        if float((following - vector).norm()) < tolerance:
            return following
        vector = following
    return vector


def best_cut(A: Float[Tensor, "n n"], vector: Float[Tensor, " n"], *, thresholds: int | None = None) -> Cut | None:
    """Return the cut of least NCut by a threshold on `vector`, from one sweep over all prefixes of its sorted order.

    `thresholds` limits the sweep to that number of evenly spaced values, as in the papers. Returns `None` where no
    threshold divides the nodes because all values are equal.
    """
    order = torch.argsort(vector, stable=True)
    cut, cost = _prefix_costs(A, order)
    ordered = vector[order]
    allowed = ordered[1:] > ordered[:-1] if thresholds is None else _evenly_spaced(ordered, thresholds)
    cost = torch.where(allowed, cost, torch.inf)
    best = int(cost.argmin())
    if not bool(torch.isfinite(cost[best])):
        return None
    side = torch.zeros_like(vector, dtype=torch.bool)
    side[order[: best + 1]] = True
    loops = A.diagonal()
    total = (A.sum(1).double().sum() - loops.double().sum()) / 2  # row sums first: a sum over float64 copies is slow
    edges = (int(A.count_nonzero()) - int(loops.count_nonzero())) // 2
    return Cut(side, float(cost[best]), float(cut[best]), float(total), edges)


def _prefix_costs(
    A: Float[Tensor, "n n"], order: Int64[Tensor, " n"]
) -> tuple[Float64[Tensor, "n-1"], Float64[Tensor, "n-1"]]:
    """Return the cut weight (Eq. 1) and NCut (Eq. 2) of each proper prefix of `order`."""
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=order.device)
    blocks = zip(A.split(_BLOCK_ROWS), rank.split(_BLOCK_ROWS), strict=True)
    # Faster than sorting rows and columns.
    earlier = torch.cat([(rows * (rank < ranks[:, None])).sum(1) for rows, ranks in blocks]).double()
    within = (2 * earlier + A.diagonal().double())[order].cumsum(0)[:-1]
    volume = A.sum(1).double()[order].cumsum(0)
    inside, outside = volume[:-1], volume[-1] - volume[:-1]
    cut = (inside - within).clamp_min(0)
    tiny = torch.finfo(torch.float64).tiny
    return cut, cut / inside.clamp_min(tiny) + cut / outside.clamp_min(tiny)


def _evenly_spaced(ordered: Float[Tensor, " n"], thresholds: int) -> Bool[Tensor, "n-1"]:
    """Return the prefixes below evenly spaced values, 0.99 of the lowest to 0.99 of the highest (DiffCut's program)."""
    low, high = 0.99 * float(ordered[0]), 0.99 * float(ordered[-1])
    values = torch.linspace(low, high, thresholds, dtype=ordered.dtype, device=ordered.device)
    lengths = torch.searchsorted(ordered, values, right=True)
    allowed = torch.zeros(len(ordered) - 1, dtype=torch.bool, device=ordered.device)
    allowed[lengths[(lengths > 0) & (lengths < len(ordered))] - 1] = True
    return allowed


def _start_vector(like: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Return a fixed start vector without symmetry: the golden-ratio sequence, spread over [-½, ½]."""
    steps = torch.arange(1, like.numel() + 1, dtype=torch.float64, device=like.device)
    return ((steps * 0.6180339887498949) % 1 - 0.5).to(like.dtype)


def _lanczos(
    A: Float[Tensor, "n n"], scale: Float[Tensor, " n"], first: Float[Tensor, " n"], tolerance: float
) -> Float[Tensor, " n"]:
    """Return the top eigenvector of `S A S`, `S = diag(scale)`, among those orthogonal to the eigenvector `first`."""
    steps = min(_LANCZOS_STEPS, len(A) - 1)
    basis = torch.empty(steps + 1, len(A), dtype=A.dtype, device=A.device)
    basis[0] = first
    residual = _orthogonal(_start_vector(first), basis[:1])
    remainder = float(residual.norm())
    T = torch.zeros(steps + 1, steps + 1, dtype=torch.float64)  # tridiagonal; `eigh` reads the lower half alone
    for step in range(1, steps + 1):
        basis[step] = residual / remainder
        following = scale * (A @ (scale * basis[step]))
        T[step - 1, step - 1] = float(following @ basis[step])
        residual = _orthogonal(following, basis[: step + 1])
        T[step, step - 1] = remainder = float(residual.norm())
        if step % _CHECK_INTERVAL == 0 or step == steps or remainder < tolerance:
            weights = torch.linalg.eigh(T[:step, :step]).eigenvectors[:, -1]
            if remainder * abs(float(weights[-1])) < tolerance:
                break
    return weights.to(basis) @ basis[1 : step + 1]


def _orthogonal(vector: Float[Tensor, " n"], basis: Float[Tensor, "m n"]) -> Float[Tensor, " n"]:
    """Return `vector` without its component in the orthonormal `basis`."""
    for _ in range(2):  # the second pass removes the rounding errors of the first
        vector = vector - basis.T @ (basis @ vector)
    return vector
