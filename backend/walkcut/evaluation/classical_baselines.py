"""The classical segmenters that walkcut is compared with: scikit-image's and SciPy's, tuned on BSDS500's val images.

All work in CIELAB on an image made so small that no method takes longer than a second; labels go back to the image's
size by nearest pixel. Tuning was for segmentation covering, of the best setting (ODS) first and of each image's best
(OIS) second. It showed: for Felzenszwalb and the normalised cut CIELAB is better than RGB, and twice as many pixels are
no better; quickshift wants kernels far wider than its default; K-means is best with hardly any weight on position.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Final, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float64, Integer, UInt8
from PIL import Image
from scipy.cluster.vq import kmeans, vq
from scipy.ndimage import distance_transform_edt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from skimage.color import rgb2lab
from skimage.filters import gaussian
from skimage.graph import cut_normalized, rag_mean_color
from skimage.measure import label
from skimage.segmentation import felzenszwalb, quickshift, slic

from walkcut.evaluation.systems import System

_REVISION: Final = 1  # raise it when the same settings give other segments
_PIXELS: Final = 16  # of a superpixel in a tiny image
_SAMPLE: Final = 3000  # pixels that shape K-means' centres
_STARTS: Final = 5  # of which K-means keeps the one with the least distortion


@dataclass(frozen=True)
class Setting:
    """Parameters of a method under their makers' names."""

    def __str__(self) -> str:
        return " ".join(f"{name}={value:g}" for name, value in asdict(self).items())


@runtime_checkable
class _Method(Protocol):
    @property
    def settings(self) -> tuple[Setting, ...]:
        """From coarse to fine."""
        ...

    def partitions(self, lab: Float64[np.ndarray, "h w 3"]) -> Sequence[Integer[np.ndarray, "h w"]]:
        """The segment of each pixel of an image in CIELAB, at each of the settings."""
        ...


@dataclass(frozen=True)
class Peer:
    """A classical method on images scaled down to at most `side` pixels in height and width: a `System`."""

    name: str
    method: _Method
    side: int

    @property
    def version(self) -> str:
        """Eight hexadecimal digits that change with anything that changes segments, the libraries' versions too."""
        identity = f"{_REVISION} {version('scikit-image')} {version('scipy')} {self}"
        return hashlib.sha256(identity.encode()).hexdigest()[:8]

    @property
    def settings(self) -> tuple[str, ...]:
        """The method's parameters, from coarse to fine."""
        return tuple(str(setting) for setting in self.method.settings)

    def segment(
        self,
        image: UInt8[np.ndarray, "y x 3"],
        parts: int = 0,  # noqa: ARG002 — no peer is told the truth
    ) -> Sequence[Integer[np.ndarray, "y x"]]:
        """See `System`."""
        thumbnail = Image.fromarray(image)
        thumbnail.thumbnail((self.side, self.side), Image.Resampling.BOX, reducing_gap=None)
        lab = rgb2lab(np.asarray(thumbnail))
        return [_enlarged(labels, image.shape[:2]) for labels in self.method.partitions(lab)]


@dataclass(frozen=True)
class RegionSize(Setting):
    """Felzenszwalb's parameters: how eagerly regions join, the blur before, the least number of pixels."""

    scale: float
    sigma: float
    min_size: int


@dataclass(frozen=True)
class Felzenszwalb:
    """Minimum spanning trees with an adaptive threshold: Felzenszwalb & Huttenlocher 2004."""

    settings: tuple[RegionSize, ...]

    def partitions(self, lab: Float64[np.ndarray, "h w 3"]) -> list[Integer[np.ndarray, "h w"]]:
        """One run for each setting; colours are divided by 100, so that scales are those of images in [0, 1]."""
        return [
            felzenszwalb(lab / 100, scale=setting.scale, sigma=setting.sigma, min_size=setting.min_size)
            for setting in self.settings
        ]


@dataclass(frozen=True)
class CutCost(Setting):
    """The normalised cut's parameter: the cost above which a part stays whole."""

    thresh: float


@dataclass(frozen=True)
class SlicNCut:
    """SLIC superpixels (Achanta et al. 2012), their adjacency graph and its normalised cut (Shi & Malik 2000).

    An edge weighs `exp(-d² / variance)` for a distance `d` between mean colours, and no less than `least_weight`: of a
    graph in several pieces the second eigenvector is not defined. BSDS500's val images get at most 176 superpixels;
    more are hardly better, and beyond 201 scikit-image's ARPACK failed for a graph in pieces.
    """

    settings: tuple[CutCost, ...]
    superpixels: int = 185
    compactness: float = 20.0
    blur: float = 1.0
    variance: float = 85.0
    least_weight: float = 1e-3
    trials: int = 30

    def partitions(self, lab: Float64[np.ndarray, "h w 3"]) -> list[Integer[np.ndarray, "h w"]]:
        """Superpixels and graph are made once; a lone superpixel has no graph to cut."""
        superpixels = slic(
            lab,
            n_segments=min(self.superpixels, 2 + lab[..., 0].size // _PIXELS),
            compactness=self.compactness / max(np.ptp(lab), 1.0),  # SLIC brings colours to [0, 1]
            sigma=self.blur,
            convert2lab=False,
            start_label=0,
        )
        if not superpixels.any():
            return [superpixels] * len(self.settings)
        graph = rag_mean_color(lab, superpixels, mode="similarity", sigma=self.variance)
        for *_, edge in graph.edges(data=True):
            edge["weight"] = max(edge["weight"], self.least_weight)
        return [
            cut_normalized(superpixels, graph, thresh=setting.thresh, num_cuts=self.trials, rng=0)
            for setting in self.settings
        ]


@dataclass(frozen=True)
class LinkLength(Setting):
    """Quickshift's parameter: the longest link, in colour and position."""

    max_dist: float


@dataclass(frozen=True)
class Quickshift:
    """Each pixel linked to the nearest of higher density: Vedaldi & Soatto 2008."""

    settings: tuple[LinkLength, ...]
    kernel_size: float = 20.0
    ratio: float = 4.0
    blur: float = 1.0

    def partitions(self, lab: Float64[np.ndarray, "h w 3"]) -> list[Integer[np.ndarray, "h w"]]:
        """All settings cut the same tree of links, which is what takes the time."""
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
class Clusters(Setting):
    """K-means' parameters: the number of clusters, and the least part of the image that a segment takes."""

    k: int
    min_part: float


@dataclass(frozen=True)
class ColourKMeans:
    """K-means on CIELAB, lightness scaled by `lightness`, and position, the image's longer side being `extent`.

    Segments are the connected parts of clusters; small ones give their pixels to the nearest segment.
    """

    settings: tuple[Clusters, ...]
    lightness: float = 0.3
    extent: float = 3.0
    blur: float = 1.0

    def partitions(self, lab: Float64[np.ndarray, "h w 3"]) -> list[Integer[np.ndarray, "h w"]]:
        """The points, and the clusters of each `k`, are made once."""
        points = self._points(lab)
        clusters = {k: _clusters(points, k).reshape(lab.shape[:2]) for k in {setting.k for setting in self.settings}}
        return [without_small(clusters[setting.k], setting.min_part) for setting in self.settings]

    def _points(self, lab: Float64[np.ndarray, "h w 3"]) -> Float64[np.ndarray, "n 5"]:
        height, width = lab.shape[:2]
        y, x = np.mgrid[:height, :width] * self.extent / max(height, width)
        colour = gaussian(lab, sigma=self.blur, channel_axis=-1) * [self.lightness, 1, 1]
        return np.dstack([colour, y, x]).reshape(-1, 5)


def linked(parent: Integer[np.ndarray, "h w"], kept: Bool[np.ndarray, "h w"]) -> Integer[np.ndarray, "h w"]:
    """The trees that are left when pixels stay linked to their parents (flat indices) only where `kept`."""
    child = np.flatnonzero(kept)
    links = coo_array((np.ones(len(child)), (child, parent.ravel()[child])), shape=(parent.size, parent.size))
    return connected_components(links, directed=False)[1].reshape(parent.shape)


def without_small(clusters: Integer[np.ndarray, "h w"], min_part: float) -> Integer[np.ndarray, "h w"]:
    """The connected parts of clusters; those below `min_part` of the image give their pixels to the nearest other.

    One segment where all are.
    """
    parts = label(clusters, background=-1, connectivity=1)
    large = (np.bincount(parts.ravel()) >= min_part * parts.size)[parts]
    if not large.any():
        return np.zeros_like(parts)
    nearest = distance_transform_edt(~large, return_distances=False, return_indices=True)
    return parts[tuple(nearest)]


def _clusters(points: Float64[np.ndarray, "n c"], k: int) -> Integer[np.ndarray, " n"]:
    """The best of a few K-means from starts drawn with a fixed seed; clusters that lose all their points go."""
    draw = np.random.default_rng(0)
    sample = points[draw.permutation(len(points))[:_SAMPLE]]
    starts = draw.integers(len(sample), size=(_STARTS, k))
    centres, _ = min((kmeans(sample, sample[start], thresh=1e-3) for start in starts), key=lambda found: found[1])
    return vq(points, centres)[0]


def _enlarged(labels: Integer[np.ndarray, "h w"], size: tuple[int, ...]) -> Integer[np.ndarray, "y x"]:
    """Labels from 0 without gaps, at a size that is no smaller."""
    rows, columns = (np.arange(new) * old // new for new, old in zip(size, labels.shape, strict=True))
    return np.unique(labels, return_inverse=True)[1].reshape(labels.shape)[np.ix_(rows, columns)]


_FELZENSZWALB: Final = Felzenszwalb(
    (
        RegionSize(1000, 1.6, 200),
        RegionSize(600, 1.2, 1100),
        RegionSize(260, 2.2, 800),
        RegionSize(200, 1.2, 1000),
        RegionSize(400, 1.0, 350),
        RegionSize(470, 0.8, 350),
        RegionSize(90, 1.2, 950),
        RegionSize(300, 0.5, 500),
        RegionSize(400, 0.5, 300),
        RegionSize(140, 1.2, 600),
        RegionSize(300, 0.8, 330),
        RegionSize(180, 0.8, 370),
        RegionSize(280, 0.8, 140),
        RegionSize(200, 0.8, 60),
    )
)
_SLIC_NCUT: Final = SlicNCut(
    tuple(map(CutCost, (0.002, 0.004, 0.008, 0.012, 0.018, 0.024, 0.032, 0.042, 0.055, 0.075, 0.1, 0.15)))
)
_QUICKSHIFT: Final = Quickshift(tuple(map(LinkLength, (90, 60, 45, 35, 28, 24, 20, 17, 14, 12, 10, 8))))
_KMEANS: Final = ColourKMeans(
    (
        Clusters(20, 0.06),
        Clusters(2, 0.04),
        Clusters(4, 0.06),
        Clusters(3, 0.04),
        Clusters(3, 0.02),
        Clusters(6, 0.04),
        Clusters(3, 0.01),
        Clusters(4, 0.02),
        Clusters(4, 0.01),
        Clusters(6, 0.02),
        Clusters(6, 0.01),
        Clusters(5, 0.005),
        Clusters(8, 0.005),
    )
)

PEERS: Final[Mapping[str, System]] = {
    peer.name: peer
    for peer in (
        Peer("felzenszwalb", _FELZENSZWALB, side=240),
        Peer("slic-ncut", _SLIC_NCUT, side=160),
        Peer("quickshift", _QUICKSHIFT, side=120),
        Peer("kmeans", _KMEANS, side=160),
    )
}
