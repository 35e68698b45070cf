"""One graph, one cut: affinities, Fiedler vector, NCut cost and the best threshold.

A graph is its symmetric, non-negative matrix of affinities `A` (n, n); entry (i, j) is the weight of the edge between
patches i and j, and the diagonal, the self-edges, counts in the degrees as it does in the papers.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from walkcut.errors import SegmentationError

_DENSE_NODES = 48  # below this the full eigendecomposition is quicker than iterating
_LANCZOS_STEPS = 400
_CHECK_EVERY = 8
_ROWS = 512  # of a matrix taken at a time: less memory, and half of a symmetric product need not be computed
_ISOLATED = 1e-6  # degrees below this part of the mean would turn rounding into large entries


@dataclass(frozen=True)
class Cut:
    """A graph of `nodes` nodes cut in two: `side` (n,) tells the halves, `weight` is Eq. 1 of DWC, `ncut` Eq. 2.

    `edges` counts the graph's edges of positive weight and `total` adds their weights, each edge once and without
    self-edges.
    """

    side: Bool[Tensor, " n"]
    ncut: float
    weight: float
    total: float
    edges: int

    @property
    def nodes(self) -> int:
        """How many nodes the graph has."""
        return self.side.numel()


def dot_affinity(P: Float[Tensor, "n m"]) -> Float[Tensor, "n n"]:
    """`A = P Pᵀ`: how far two patches look at the same places (DWC 3.3)."""
    return _gram(P)


def cosine_affinity(P: Float[Tensor, "n m"]) -> Float[Tensor, "n n"]:
    """`A_ij = p_i · p_j / (‖p_i‖ ‖p_j‖)`, in [0, 1] for distributions (DWC 3.3)."""
    return _gram(torch.nn.functional.normalize(P, dim=1))


def _gram(F: Float[Tensor, "n m"]) -> Float[Tensor, "n n"]:
    """`F Fᵀ`, of which only the upper half is computed; exactly symmetric."""
    product = F.new_empty(len(F), len(F))
    for first in range(0, len(F), _ROWS):
        last = first + _ROWS
        product[first:last, first:] = F[first:last] @ F[first:].T
        product[last:, first:last] = product[first:last, last:].T
    return product


def walk_affinity(P: Float[Tensor, "n n"]) -> Float[Tensor, "n n"]:
    """`½ (Π P + Pᵀ Π)` with the stationary distribution Π: the flow of the walk along each edge.

    Its NCut is that of the walk itself, the chance to leave a half within a step (Meila & Shi; DWC 2.2). Π is scaled
    to a mean of one per patch, so that weights are of the size of those of `dot_affinity`.
    """
    flow = stationary(P)[:, None] * (P * len(P))
    return (flow + flow.T) / 2


def stationary(P: Float[Tensor, "n n"], *, steps: int = 1000, tolerance: float = 1e-7) -> Float[Tensor, " n"]:
    """The distribution π with `π P = π`, by power iteration on the lazy walk `½ (I + P)`, which always converges."""
    pi = torch.full_like(P[0], 1 / len(P))
    for _ in range(steps):
        following = (pi + pi @ P) / 2
        following = following / following.sum()
        if float((following - pi).abs().sum()) < tolerance:
            return following
        pi = following
    return pi


def ncut_cost(A: Float[Tensor, "n n"], side: Bool[Tensor, " n"]) -> float:
    """`cut(S, S̄) / assoc(S, V) + cut(S, S̄) / assoc(S̄, V)`, in [0, 2] (DWC Eq. 2); both halves need a node."""
    A = A.double()
    cut = A[side][:, ~side].sum()
    return float(cut / A[side].sum() + cut / A[~side].sum())


def fiedler_vector(A: Float[Tensor, "n n"], *, tolerance: float = 1e-5) -> Float[Tensor, " n"]:
    """The second generalised eigenvector of `(D − A) x = λ D x` (DWC Eq. 3), of unit length.

    By Lanczos on `D^-½ A D^-½` with the known first eigenvector `D^½ 1` deflated. The residual is below `tolerance`
    or the step limit was reached. Raises `SegmentationError` for a single node, and for entries that are negative,
    not finite or all zero.
    """
    degree = A.sum(1)
    if len(A) < 2:
        raise SegmentationError("a graph of one node has no Fiedler vector: cut graphs of two nodes and more")
    if not bool(torch.isfinite(degree).all()) or float(A.min()) < 0 or not float(degree.sum()) > 0:
        raise SegmentationError("affinities must be finite, not negative, and not all zero: check the evidence")
    scale = inverse_root(degree)
    if len(A) <= _DENSE_NODES:
        vectors = torch.linalg.eigh(scale[:, None] * A * scale).eigenvectors
        vector = vectors[:, -2]
    else:
        vector = _lanczos(A, scale, degree.sqrt() / degree.sum().sqrt(), tolerance)
    vector = scale * vector
    return vector / vector.norm()


def inverse_root(degree: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """The diagonal of `D^-½`; nodes next to isolated count as a little connected, so that rounding stays small."""
    return degree.clamp_min(_ISOLATED * float(degree.mean())).rsqrt()


def walk_vector(P: Float[Tensor, "n n"], *, steps: int = 2000, tolerance: float = 1e-6) -> Float[Tensor, " n"]:
    """The second right eigenvector of a row-stochastic `P`, by power iteration with one deflation (DWC 3.2).

    The first pair, `P 1 = 1` and `π P = π`, is deflated as `P − 1 πᵀ`; iterating on the lazy walk `½ (I + P)` keeps
    the order of the eigenvectors and makes the largest eigenvalue the one wanted.
    """
    pi = stationary(P)
    vector = _start(P[0])
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
    """The cheapest cut of a graph by a threshold on `vector`, in one sweep over all prefixes of its sorted order.

    `thresholds` restricts the sweep to so many evenly spaced values, as the papers do. `None` where no threshold
    parts the nodes, all values being equal: a graph without a second half.
    """
    order = torch.argsort(vector, stable=True)
    cut, cost = _prefix_costs(A, order)
    ordered = vector[order]
    allowed = _steps(ordered) if thresholds is None else _evenly_spaced(ordered, thresholds)
    cost = torch.where(allowed, cost, torch.inf)
    best = int(cost.argmin())
    if not bool(torch.isfinite(cost[best])):
        return None
    side = torch.zeros_like(vector, dtype=torch.bool)
    side[order[: best + 1]] = True
    loops = A.diagonal()
    total = (A.sum(1).double().sum() - loops.double().sum()) / 2  # rows first: summing them in double is slow
    edges = (int(A.count_nonzero()) - int(loops.count_nonzero())) // 2
    return Cut(side, float(cost[best]), float(cut[best]), float(total), edges)


def _prefix_costs(
    A: Float[Tensor, "n n"], order: Int64[Tensor, " n"]
) -> tuple[Float64[Tensor, "n-1"], Float64[Tensor, "n-1"]]:
    """Cut weight (Eq. 1) and NCut cost (Eq. 2) of every prefix of `order` but the whole."""
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=order.device)
    # Quicker than sorting rows and columns.
    earlier = torch.cat(
        [(rows * (rank < own[:, None])).sum(1) for rows, own in zip(A.split(_ROWS), rank.split(_ROWS), strict=True)]
    ).double()
    within = (2 * earlier + A.diagonal().double())[order].cumsum(0)[:-1]
    volume = A.sum(1).double()[order].cumsum(0)
    inside, outside = volume[:-1], volume[-1] - volume[:-1]
    cut = (inside - within).clamp_min(0)
    tiny = torch.finfo(torch.float64).tiny
    return cut, cut / inside.clamp_min(tiny) + cut / outside.clamp_min(tiny)


def _steps(ordered: Float[Tensor, " n"]) -> Bool[Tensor, "n-1"]:
    """Where a sorted vector rises, so that a threshold fits between two nodes."""
    return ordered[1:] > ordered[:-1]


def _evenly_spaced(ordered: Float[Tensor, " n"], thresholds: int) -> Bool[Tensor, "n-1"]:
    """The prefixes that evenly spaced values from 0.99 of the lowest to 0.99 of the highest cut off.

    The papers name no ends; these are those of DiffCut's program.
    """
    low, high = 0.99 * float(ordered[0]), 0.99 * float(ordered[-1])
    values = torch.linspace(low, high, thresholds, dtype=ordered.dtype, device=ordered.device)
    lengths = torch.searchsorted(ordered, values, right=True)
    allowed = torch.zeros(len(ordered) - 1, dtype=torch.bool, device=ordered.device)
    allowed[lengths[(lengths > 0) & (lengths < len(ordered))] - 1] = True
    return allowed


def _start(like: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """A fixed start vector without symmetry: the golden-ratio sequence, spread over [-½, ½]."""
    steps = torch.arange(1, like.numel() + 1, dtype=torch.float64, device=like.device)
    return ((steps * 0.6180339887498949) % 1 - 0.5).to(like.dtype)


def _lanczos(
    A: Float[Tensor, "n n"], scale: Float[Tensor, " n"], first: Float[Tensor, " n"], tolerance: float
) -> Float[Tensor, " n"]:
    """Eigenvector of the largest eigenvalue of `S A S`, `S = diag(scale)`, orthogonal to the eigenvector `first`."""
    steps = min(_LANCZOS_STEPS, len(A) - 1)
    basis = torch.empty(steps + 1, len(A), dtype=A.dtype, device=A.device)
    basis[0] = first
    residual = _orthogonal(_start(first), basis[:1])
    diagonal: list[float] = []
    beside: list[float] = []
    for step in range(1, steps + 1):
        beside.append(float(residual.norm()))
        basis[step] = residual / beside[-1]
        following = scale * (A @ (scale * basis[step]))
        diagonal.append(float(following @ basis[step]))
        residual = _orthogonal(following, basis[: step + 1])
        left = float(residual.norm())
        if step % _CHECK_EVERY == 0 or step == steps or left < tolerance:
            weights = _ritz(diagonal, beside[1:])
            if left * abs(float(weights[-1])) < tolerance or left < tolerance:
                break
    return weights.to(basis) @ basis[1 : step + 1]


def _orthogonal(vector: Float[Tensor, " n"], basis: Float[Tensor, "m n"]) -> Float[Tensor, " n"]:
    """`vector` less its part in the orthonormal `basis`, twice for the rounding of the first time."""
    for _ in range(2):
        vector = vector - basis.T @ (basis @ vector)
    return vector


def _ritz(diagonal: list[float], beside: list[float]) -> Float64[Tensor, " m"]:
    """The last eigenvector of a symmetric tridiagonal matrix."""
    matrix = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
    if beside:
        side = torch.tensor(beside, dtype=torch.float64)
        matrix = matrix + torch.diag(side, 1) + torch.diag(side, -1)
    return torch.linalg.eigh(matrix).eigenvectors[:, -1]
