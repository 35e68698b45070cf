"""The papers' baselines on the same features: K-means, DBSCAN, TokenCut and MaskCut.

Each takes the features of the patches (height, width, channels), for example the rows of `P`, and returns the label of
each pixel of an image of `size` (height, width). K-means and DBSCAN, whose labels run from 0 without gaps, are
scikit-learn's, as in DiffSeg's baselines (section 9.4); it is needed only when they are called.
"""

import warnings
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from scipy import ndimage
from scipy.sparse import csr_array
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor
from torch.nn.functional import interpolate

from walkcut.errors import SegmentationError, require_extra
from walkcut.segmentation.algorithms.ncut import cosine_affinity, fiedler_vector, patch_features
from walkcut.segmentation.algorithms.upsampling import Size, leaf_score_maps, upsampled_argmax

_WEAK_EDGE = 1e-5  # between dissimilar patches, so that the graph stays connected (TokenCut)
_MIN_OBJECT_FRACTION = 0.01  # of all patches (MaskCut)
_SAME_OBJECT_IOU = 0.5  # with the previous object (MaskCut)
_BACKGROUND_CORNERS = 3  # of four (MaskCut)
_ROUNDING = 1e-6  # of the largest entry: entries of equal patches differ by rounding
_TOLERANCE = 1e-9  # with edges this weak the eigenvalues of separate parts lie close together
_SPARSE_NODES = 1024  # above this ARPACK with sparse edges is many times faster


def kmeans(features: Float[Tensor, "h w c"], *, clusters: int = 6, size: Size, seed: int = 0) -> Int64[Tensor, "y x"]:
    """Segment by K-means; DiffSeg's K-Means-C takes 6 clusters, its K-Means-S the number of classes in the truth."""
    points = patch_features(features)
    if not 1 <= clusters <= len(points):
        raise SegmentationError(f"{len(points)} patches make 1 to {len(points)} clusters, not {clusters}")
    cluster = kmeans_clusters(points, clusters, seed=seed).unique(return_inverse=True)[1]
    return _pixels(leaf_score_maps(points, cluster, _grid(features)), size)


def dbscan(features: Float[Tensor, "h w c"], *, radius: float, neighbours: int = 5, size: Size) -> Int64[Tensor, "y x"]:
    """Segment by DBSCAN (Ester et al. 1996).

    Patches with `neighbours` patches, themselves included, within `radius` are cores. Cores within the radius of each
    other form a cluster; any other patch joins the first cluster that reaches it, or is noise. Noise forms no cluster:
    its pixels go to the most similar one, as all pixels do.
    """
    if not radius > 0:
        raise SegmentationError(f"DBSCAN needs a radius above 0, not {radius}")
    points = patch_features(features)
    cluster = density_clusters(points, radius=radius, neighbours=neighbours)
    scores = leaf_score_maps(points, cluster + 1, _grid(features))  # leaf 0: noise
    return _pixels(scores[1:] if len(scores) > 1 else scores, size)


def tokencut(features: Float[Tensor, "h w c"], *, threshold: float = 0.2, size: Size) -> Int64[Tensor, "y x"]:
    """Segment by TokenCut (Wang et al. 2022): 1 for the salient object, 0 elsewhere. See `salient_object`."""
    return _nearest(salient_object(features, threshold=threshold).long(), size)


def maskcut(
    features: Float[Tensor, "h w c"], *, objects: int = 3, threshold: float = 0.15, size: Size
) -> Int64[Tensor, "y x"]:
    """Segment by MaskCut (CutLER, Wang et al. 2023): repeated TokenCut with the previous objects masked out.

    Labels are 0 for the background and the round's number, at most `objects`, for an object. As in the authors'
    program a round adds nothing if its object is tiny or overlaps most of the previous one.
    """
    if objects < 1:
        raise SegmentationError(f"MaskCut needs at least 1 object, not {objects}")
    labels = torch.zeros(features.shape[:2], dtype=torch.int64, device=features.device)
    previous = labels > 0
    for index in range(1, objects + 1):
        mask = salient_object(features * (labels == 0)[..., None], threshold=threshold, central=True)
        tiny = float(mask.double().mean()) <= _MIN_OBJECT_FRACTION
        iou = float((mask & previous).sum() / (mask | previous).sum().clamp_min(1))
        if index > 1 and (tiny or iou > _SAME_OBJECT_IOU):
            mask = torch.zeros_like(mask)
        labels[mask & (labels == 0)] = index
        previous = mask
    return _nearest(labels, size)


def kmeans_clusters(
    points: Float[Tensor, "n c"],
    clusters: int,
    *,
    init: Float[Tensor, "k c"] | None = None,
    starts: int = 1,
    seed: int = 0,
) -> Int64[Tensor, " n"]:
    """Return each point's K-means cluster: the best of some starts from K-means++ seeds, or one from `init` centres.

    A centre that loses all its points moves to the point farthest from its own. Raises `SettingsError` without
    scikit-learn.
    """
    with require_extra("evaluation"):
        from sklearn.cluster import KMeans  # noqa: PLC0415 - an extra
    centres = "k-means++" if init is None else init.numpy(force=True)
    return _fit_predict(KMeans(clusters, init=centres, n_init=starts, random_state=seed), points)


def density_clusters(points: Float[Tensor, "n c"], *, radius: float, neighbours: int) -> Int64[Tensor, " n"]:
    """Return each point's DBSCAN cluster, -1 for noise. Raises `SettingsError` without scikit-learn."""
    with require_extra("evaluation"):
        from sklearn.cluster import DBSCAN  # noqa: PLC0415 - an extra
    return _fit_predict(DBSCAN(eps=radius, min_samples=neighbours), points.double())


def _fit_predict(method: Any, points: Float[Tensor, "n c"]) -> Int64[Tensor, " n"]:
    """Return each point's cluster by a method of scikit-learn."""
    from sklearn.exceptions import ConvergenceWarning  # noqa: PLC0415 - an extra
    from threadpoolctl import threadpool_limits  # noqa: PLC0415

    with warnings.catch_warnings(), threadpool_limits(1):  # threads that wait for each other are slower
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct points than clusters
        labels = method.fit_predict(points.numpy(force=True))
    return torch.from_numpy(labels.astype(np.int64)).to(points.device)


def salient_object(features: Float[Tensor, "h w c"], *, threshold: float, central: bool = False) -> Bool[Tensor, "h w"]:
    """Return the connected patches around the first extreme entry of the Fiedler vector, on its side of the mean.

    Edges weigh 1 above the cosine similarity `threshold` and almost 0 elsewhere. `central`: a side with three corners
    of the image or more is background, so the opposite side is taken (MaskCut). Empty if all patches are similar, or
    no two are.
    """
    similar = cosine_affinity(patch_features(features).double()) > threshold
    if bool(similar.all()) or not bool(similar.triu(1).any()):
        return torch.zeros(_grid(features), dtype=torch.bool, device=features.device)
    vector = _fiedler_vector(similar)
    if float(vector[vector.abs().argmax()]) < 0:
        vector = -vector
    side = (vector > vector.mean()).unflatten(0, _grid(features))
    if central and int(side[[0, 0, -1, -1], [0, -1, 0, -1]].sum()) >= _BACKGROUND_CORNERS:
        side, vector = ~side, -vector
    seed = (vector >= (1 - _ROUNDING) * vector.max()).nonzero()[0]
    components = torch.from_numpy(ndimage.label(side.cpu().numpy())[0]).to(side.device)
    return side & (components == components.flatten()[seed])


def _fiedler_vector(similar: Bool[Tensor, "n n"]) -> Float64[Tensor, " n"]:
    """Return the Fiedler vector of the graph with edges of 1 between similar patches and weak ones between all others.

    In large graphs similar patches have both edges, which changes the vector by rounding alone.
    """
    if len(similar) <= _SPARSE_NODES:
        return fiedler_vector(torch.where(similar, 1.0, _WEAK_EDGE).double(), tolerance=_TOLERANCE)
    edges = csr_array(similar.cpu().numpy(), dtype=np.float64)
    scale = (edges.sum(1) + _WEAK_EDGE * len(similar)) ** -0.5

    def product(vector: Float64[np.ndarray, "*n"]) -> Float64[np.ndarray, " n"]:
        scaled = scale * vector.ravel()
        return scale * (edges @ scaled + _WEAK_EDGE * scaled.sum())

    similarity = LinearOperator(similar.shape, matvec=product, dtype=np.float64)
    start = np.cos(np.arange(len(similar)))  # without symmetry; the same each time
    _, vectors = eigsh(similarity, k=2, which="LA", v0=start, tol=_TOLERANCE)
    return torch.from_numpy(scale * vectors[:, 0]).to(similar.device)


def _grid(features: Float[Tensor, "h w c"]) -> Size:
    return features.shape[0], features.shape[1]


def _pixels(scores: Float[Tensor, "k h w"], size: Size) -> Int64[Tensor, "y x"]:
    """Assign each pixel to the cluster of the most similar mean, as for the segments of DWC and DiffCut."""
    return upsampled_argmax(scores, size).unique(return_inverse=True)[1]


def _nearest(labels: Int64[Tensor, "h w"], size: Size) -> Int64[Tensor, "y x"]:
    """Scale labels to an image's `size`: each pixel takes its own patch's, as in TokenCut and MaskCut."""
    return interpolate(labels[None, None].double(), size=size, mode="nearest-exact")[0, 0].long()
