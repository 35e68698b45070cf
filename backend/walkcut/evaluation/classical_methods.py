"""Classical segmentation methods of scikit-image and scikit-learn, on images in CIELAB, each at several settings."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float64, Integer
from scipy.ndimage import distance_transform_edt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from skimage.filters import gaussian
from skimage.graph import cut_normalized, rag_mean_color
from skimage.measure import label
from skimage.segmentation import felzenszwalb, quickshift, slic
from torch import Tensor

from walkcut.segmentation.algorithms.clustering import kmeans_clusters

_MIN_SUPERPIXEL: Final = 16  # pixels, in a tiny image
_STARTS: Final = 5  # of which K-means keeps the one of least distortion


@dataclass(frozen=True)
class Setting:
    """Parameters of a method under their libraries' names."""

    def __str__(self) -> str:
        return " ".join(f"{name}={value:g}" for name, value in asdict(self).items())


@runtime_checkable
class ClassicalMethod(Protocol):
    """A segmentation method at several settings."""

    @property
    def settings(self) -> tuple[Setting, ...]:
        """The settings, from coarse to fine."""

    def partitions(self, lab: Float64[np.ndarray, "h w 3"]) -> Sequence[Integer[np.ndarray, "h w"]]:
        """Return the segment of each pixel of an image in CIELAB, at each of the settings."""


@dataclass(frozen=True)
class FelzenszwalbSetting(Setting):
    """Felzenszwalb's parameters: the scale of regions, the blur beforehand, the minimum size in pixels."""

    scale: float
    sigma: float
    min_size: int


@dataclass(frozen=True)
class Felzenszwalb:
    """Minimum spanning trees with an adaptive threshold: Felzenszwalb & Huttenlocher 2004."""

    settings: tuple[FelzenszwalbSetting, ...]

    def partitions(self, lab: Float64[np.ndarray, "h w 3"]) -> list[Integer[np.ndarray, "h w"]]:
        """Segment once for each setting; colours are divided by 100, so that scales are those of images in [0, 1]."""
        return [
            felzenszwalb(lab / 100, scale=setting.scale, sigma=setting.sigma, min_size=setting.min_size)
            for setting in self.settings
        ]


@dataclass(frozen=True)
class NCutSetting(Setting):
    """The normalised cut's parameter: the cost above which a segment is not cut."""

    thresh: float


@dataclass(frozen=True)
class SlicNCut:
    """SLIC superpixels (Achanta et al. 2012) and the normalised cut of their adjacency graph (Shi & Malik 2000).

    An edge weighs `exp(-d² / variance)` for a distance `d` between mean colours, and at least `min_weight`: in a
    disconnected graph the second eigenvector is not defined. BSDS500's val images get at most 176 superpixels; more
    are hardly better, and beyond 201 scikit-image's ARPACK failed for disconnected graphs.
    """

    settings: tuple[NCutSetting, ...]
    superpixels: int = 185
    compactness: float = 20.0
    blur: float = 1.0
    variance: float = 85.0
    min_weight: float = 1e-3
    trials: int = 30

    def partitions(self, lab: Float64[np.ndarray, "h w 3"]) -> list[Integer[np.ndarray, "h w"]]:
        """Build superpixels and graph once and cut at each setting; a single superpixel has no graph."""
        superpixels = slic(
            lab,
            n_segments=min(self.superpixels, 2 + lab[..., 0].size // _MIN_SUPERPIXEL),
            compactness=self.compactness / max(np.ptp(lab), 1.0),  # SLIC brings colours to [0, 1]
            sigma=self.blur,
            convert2lab=False,
            start_label=0,
        )
        if not superpixels.any():
            return [superpixels] * len(self.settings)
        graph = rag_mean_color(lab, superpixels, mode="similarity", sigma=self.variance)
        for *_, edge in graph.edges(data=True):
            edge["weight"] = max(edge["weight"], self.min_weight)
        return [
            cut_normalized(superpixels, graph, thresh=setting.thresh, num_cuts=self.trials, rng=0)
            for setting in self.settings
        ]


@dataclass(frozen=True)
class QuickshiftSetting(Setting):
    """Quickshift's parameter: the longest link, in colour and position."""

    max_dist: float


@dataclass(frozen=True)
class Quickshift:
    """Each pixel linked to the nearest of higher density: Vedaldi & Soatto 2008."""

    settings: tuple[QuickshiftSetting, ...]
    kernel_size: float = 20.0
    ratio: float = 4.0
    blur: float = 1.0

    def partitions(self, lab: Float64[np.ndarray, "h w 3"]) -> list[Integer[np.ndarray, "h w"]]:
        """Build the tree of links once, which takes the time, and cut it at each setting."""
        _, parent, length = quickshift(
            lab,
            kernel_size=self.kernel_size,
            ratio=self.ratio,
            sigma=self.blur,
            max_dist=np.inf,
            convert2lab=False,
            return_tree=True,
        )
        return [linked(np.asarray(parent), np.asarray(length) <= setting.max_dist) for setting in self.settings]


@dataclass(frozen=True)
class KMeansSetting(Setting):
    """K-means' parameters: the number of clusters, and the minimum fraction of the image that a segment covers."""

    k: int
    min_part: float


@dataclass(frozen=True)
class ColourKMeans:
    """K-means on CIELAB, lightness scaled by `lightness`, and position, the image's longer side scaled to `extent`.

    Segments are the connected parts of clusters; small ones give their pixels to the nearest segment.
    """

    settings: tuple[KMeansSetting, ...]
    lightness: float = 0.3
    extent: float = 3.0
    blur: float = 1.0

    def partitions(self, lab: Float64[np.ndarray, "h w 3"]) -> list[Integer[np.ndarray, "h w"]]:
        """Cluster once for each `k`, and remove small parts for each setting."""
        points = self._points(lab)
        counts = {setting.k for setting in self.settings}
        clusters = {k: kmeans_clusters(points, min(k, len(points)), starts=_STARTS) for k in counts}
        shape = lab.shape[:2]
        return [
            without_small(clusters[setting.k].numpy().reshape(shape), setting.min_part) for setting in self.settings
        ]

    def _points(self, lab: Float64[np.ndarray, "h w 3"]) -> Float64[Tensor, "n 5"]:
        height, width = lab.shape[:2]
        y, x = np.mgrid[:height, :width] * self.extent / max(height, width)
        colour = gaussian(lab, sigma=self.blur, channel_axis=-1) * [self.lightness, 1, 1]
        return torch.from_numpy(np.dstack([colour, y, x]).reshape(-1, 5))


def linked(parent: Integer[np.ndarray, "h w"], kept: Bool[np.ndarray, "h w"]) -> Integer[np.ndarray, "h w"]:
    """Return the trees of the pixels' links to their parents (flat indices), only the `kept` links."""
    child = np.flatnonzero(kept)
    links = coo_array((np.ones(len(child)), (child, parent.ravel()[child])), shape=(parent.size, parent.size))
    return connected_components(links, directed=False)[1].reshape(parent.shape)


def without_small(clusters: Integer[np.ndarray, "h w"], min_part: float) -> Integer[np.ndarray, "h w"]:
    """Return the connected parts of clusters; those below `min_part` of the image become part of the nearest.

    One segment if all are that small.
    """
    parts = label(clusters, background=-1, connectivity=1)
    large = (np.bincount(parts.ravel()) >= min_part * parts.size)[parts]
    if not large.any():
        return np.zeros_like(parts)
    nearest = distance_transform_edt(~large, return_distances=False, return_indices=True)
    return parts[tuple(nearest)]
