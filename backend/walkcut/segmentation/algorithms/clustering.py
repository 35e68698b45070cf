"""The papers' baselines on the same evidence: K-means, DBSCAN, TokenCut and MaskCut.

All take the features of the patches (height, width, channels), for example the rows of `P`, and give each pixel of a
image of `size` (height, width) its label. Those of K-means and DBSCAN are numbered from 0 without gaps.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from scipy import ndimage
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor
from torch.nn.functional import interpolate, one_hot

from walkcut.errors import SegmentationError
from walkcut.segmentation.algorithms.graph import cosine_affinity, fiedler_vector
from walkcut.segmentation.algorithms.upsampling import ScoreMaps, assign_pixels, leaf_score_maps

_WEAK_EDGE = 1e-5  # instead of none, so that the graph stays connected (TokenCut)
_SMALLEST_OBJECT = 0.01  # part of all patches (MaskCut)
_SAME_OBJECT = 0.5  # intersection over union with the object before (MaskCut)
_CORNERS_OF_A_BACKGROUND = 3  # of four (MaskCut)
_ROUNDING = 1e-6  # of the largest entry: alike patches have entries that differ by rounding alone
_TOLERANCE = 1e-9  # with edges this weak the eigenvalues of separate parts lie close together
_SPARSE_NODES = 1024  # above this ARPACK with sparse edges is many times quicker


def kmeans(
    features: Float[Tensor, "h w c"], *, clusters: int = 6, size: tuple[int, int], seed: int = 0
) -> Int64[Tensor, "y x"]:
    """K-means from K-means++ seeds, with the random numbers of `seed`.

    DiffSeg's K-Means-C takes 6 clusters for every image, its K-Means-S each image's true number of classes.
    """
    points = _patches(features)
    if not 1 <= clusters <= len(points):
        raise SegmentationError(f"{len(points)} patches make 1 to {len(points)} clusters, not {clusters}")
    cluster, _ = lloyd(points, points[_spread_seeds(points, clusters, seed)])
    cluster = cluster.unique(return_inverse=True)[1]
    return _pixels(leaf_score_maps(points, cluster, _grid(features)), size).to(features.device)


def dbscan(
    features: Float[Tensor, "h w c"], *, radius: float, neighbours: int = 5, size: tuple[int, int]
) -> Int64[Tensor, "y x"]:
    """DBSCAN (Ester et al. 1996): patches with `neighbours` patches, themselves included, within `radius` are cores.

    Cores within reach of each other make a cluster, and a patch within reach of a core goes to the nearest one's.
    What is left is noise and shapes no cluster; its pixels go to the most similar one, as all pixels do.
    """
    if not radius > 0:
        raise SegmentationError(f"DBSCAN looks for neighbours within a radius above 0, not {radius}")
    points = _patches(features)
    cluster = density_clusters(points, radius=radius, neighbours=neighbours)
    scores = leaf_score_maps(points, cluster + 1, _grid(features))  # leaf 0: noise
    if bool((cluster >= 0).any()):
        scores = ScoreMaps(scores.scores[1:], scores.norms[1:])
    return _pixels(scores, size).to(features.device)


def tokencut(
    features: Float[Tensor, "h w c"], *, threshold: float = 0.2, size: tuple[int, int]
) -> Int64[Tensor, "y x"]:
    """TokenCut (Wang et al. 2022): 1 where the one salient object is, 0 elsewhere.

    `threshold` is the cosine similarity above which patches count as alike.
    """
    return _nearest(salient_object(features, threshold=threshold).long(), size)


def maskcut(
    features: Float[Tensor, "h w c"], *, objects: int = 3, threshold: float = 0.15, size: tuple[int, int]
) -> Int64[Tensor, "y x"]:
    """MaskCut (CutLER, Wang et al. 2023): TokenCut again and again, the objects found before masked out.

    Labels are 0 for the background and the number of the round for an object, at most `objects`. As in the authors'
    program a round that finds next to nothing, or most of the object before, adds none.
    """
    if objects < 1:
        raise SegmentationError(f"MaskCut looks for at least 1 object, not {objects}")
    labels = torch.zeros(features.shape[:2], dtype=torch.int64, device=features.device)
    last = labels > 0
    for number in range(1, objects + 1):
        found = salient_object(features * (labels == 0)[..., None], threshold=threshold, central=True)
        if number > 1 and (_overlap(found, last) > _SAME_OBJECT or float(found.double().mean()) <= _SMALLEST_OBJECT):
            found = torch.zeros_like(found)
        labels[found & (labels == 0)] = number
        last = found
    return _nearest(labels, size)


def lloyd(
    points: Float[Tensor, "n c"], centres: Float[Tensor, "k c"], *, steps: int = 300
) -> tuple[Int64[Tensor, " n"], Float[Tensor, "k c"]]:
    """Each point's cluster and the clusters' means, from given `centres`, until no point moves (Lloyd's K-means).

    A cluster that loses all its points keeps its centre.
    """
    cluster = _closest(points, centres)
    for _ in range(steps):
        member = one_hot(cluster, len(centres)).T.to(points)
        count = member.sum(1, keepdim=True)
        centres = torch.where(count > 0, member @ points / count.clamp_min(1), centres)
        following = _closest(points, centres)
        if torch.equal(following, cluster):
            break
        cluster = following
    return cluster, centres


def density_clusters(points: Float[Tensor, "n c"], *, radius: float, neighbours: int) -> Int64[Tensor, " n"]:
    """Each point's DBSCAN cluster, -1 for noise."""
    wide = points.double()  # cdist subtracts large numbers: in single precision a point is off itself
    distances = torch.cdist(wide, wide)
    core = (distances <= radius).sum(1) >= neighbours
    cluster = torch.full_like(distances[0], -1, dtype=torch.int64)
    if not bool(core.any()):
        return cluster
    reach, nearest = distances[:, core].min(1)
    linked = csr_array((distances[core][:, core] <= radius).cpu().numpy())
    number = torch.from_numpy(connected_components(linked, directed=False)[1]).to(cluster)
    return torch.where(reach <= radius, number[nearest], cluster)


def salient_object(features: Float[Tensor, "h w c"], *, threshold: float, central: bool = False) -> Bool[Tensor, "h w"]:
    """The connected patches around the (first) most extreme entry of the Fiedler vector, on its side of the mean.

    Edges are 1 above the cosine similarity `threshold` and next to nothing elsewhere. `central`: a side that
    holds three corners of the image or more is background, so the other side is taken (MaskCut). Where all patches
    are alike, or none is like another, none is salient.
    """
    alike = cosine_affinity(_patches(features).double()) > threshold
    if bool(alike.all()) or not bool(alike.triu(1).any()):
        return torch.zeros(_grid(features), dtype=torch.bool, device=features.device)
    vector = _fiedler_vector(alike)
    if float(vector[vector.abs().argmax()]) < 0:
        vector = -vector
    side = (vector > vector.mean()).unflatten(0, _grid(features))
    if central and int(side[[0, 0, -1, -1], [0, -1, 0, -1]].sum()) >= _CORNERS_OF_A_BACKGROUND:
        side, vector = ~side, -vector
    seed = (vector >= (1 - _ROUNDING) * vector.max()).nonzero()[0]
    pieces = torch.from_numpy(ndimage.label(side.cpu().numpy())[0]).to(side.device)
    return side & (pieces == pieces.flatten()[seed])


def _fiedler_vector(alike: Bool[Tensor, "n n"]) -> Float64[Tensor, " n"]:
    """The Fiedler vector of the graph with an edge of 1 between patches alike, and a weak one between all others.

    In large graphs those alike have both, which changes the vector by rounding alone.
    """
    if len(alike) <= _SPARSE_NODES:
        return fiedler_vector(torch.where(alike, 1.0, _WEAK_EDGE).double(), tolerance=_TOLERANCE)
    edges = csr_array(alike.cpu().numpy(), dtype=np.float64)
    scale = (edges.sum(1) + _WEAK_EDGE * len(alike)) ** -0.5

    def product(vector: Float64[np.ndarray, "*n"]) -> Float64[np.ndarray, " n"]:
        scaled = scale * vector.ravel()
        return scale * (edges @ scaled + _WEAK_EDGE * scaled.sum())

    similarity = LinearOperator(alike.shape, matvec=product, dtype=np.float64)
    start = np.cos(np.arange(len(alike)))  # without symmetry; the same each time
    _, vectors = eigsh(similarity, k=2, which="LA", v0=start, tol=_TOLERANCE)
    return torch.from_numpy(scale * vectors[:, 0]).to(alike.device)


def _patches(features: Float[Tensor, "h w c"]) -> Float[Tensor, "n c"]:
    """The patches' features as rows, in single precision or more."""
    if not bool(torch.isfinite(features).all()):
        raise SegmentationError("features must be finite: check the model's precision")
    return features.flatten(0, 1).to(torch.promote_types(features.dtype, torch.float32))


def _grid(features: Float[Tensor, "h w c"]) -> tuple[int, int]:
    """The grid of the patches."""
    return features.shape[0], features.shape[1]


def _spread_seeds(points: Float[Tensor, "n c"], clusters: int, seed: int) -> list[int]:
    """K-means++ (Arthur & Vassilvitskii 2007): each next one drawn by its squared distance from those before."""
    draw = torch.Generator().manual_seed(seed)
    chosen = [int(torch.randint(len(points), (), generator=draw))]
    left = torch.full((len(points),), torch.inf, dtype=torch.float64)
    while len(chosen) < clusters:
        left = torch.minimum(left, (points - points[chosen[-1]]).square().sum(1).double().cpu())
        chosen.append(int(torch.multinomial(left if bool(left.any()) else left + 1, 1, generator=draw)))
    return chosen


def _closest(points: Float[Tensor, "n c"], centres: Float[Tensor, "k c"]) -> Int64[Tensor, " n"]:
    """The nearest of the centres; a point's own norm changes nothing."""
    return (centres.square().sum(1) - 2 * points @ centres.T).argmin(1)


def _overlap(found: Bool[Tensor, "h w"], last: Bool[Tensor, "h w"]) -> float:
    """Intersection over union."""
    return float((found & last).sum() / (found | last).sum().clamp_min(1))


def _pixels(scores: ScoreMaps, size: tuple[int, int]) -> Int64[Tensor, "y x"]:
    """Each pixel to the cluster whose mean is most similar, as the segments of DWC and DiffCut."""
    return torch.from_numpy(assign_pixels(scores, size).astype("int64")).unique(return_inverse=True)[1]


def _nearest(labels: Int64[Tensor, "h w"], size: tuple[int, int]) -> Int64[Tensor, "y x"]:
    """Labels at an image's `size`: each pixel takes its own patch's, as in TokenCut and MaskCut."""
    return interpolate(labels[None, None].double(), size=size, mode="nearest-exact")[0, 0].long()
