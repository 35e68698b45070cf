"""Classical segmenters for comparison: scikit-image's and scikit-learn's, tuned on BSDS500's val images.

All work in CIELAB on an image scaled down so that no method takes longer than a second; labels are scaled back by
nearest pixel. They were tuned for segmentation covering, of the best setting (ODS) first and of each image's best
(OIS) second: Felzenszwalb and the normalised cut are better in CIELAB than in RGB, and no better with twice as many
pixels; quickshift needs kernels far wider than its default; K-means is best with hardly any weight on position.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Final, TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float64, Integer, UInt8
from PIL import Image
from scipy.ndimage import distance_transform_edt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from skimage.color import rgb2lab
from skimage.filters import gaussian
from skimage.graph import cut_normalized, rag_mean_color
from skimage.measure import label
from skimage.segmentation import felzenszwalb, quickshift, slic

from walkcut.errors import require_extra
from walkcut.evaluation.systems import System
from walkcut.segmentation.algorithms.clustering import kmeans_clusters

_REVISION: Final = 2  # raise it when the same settings give other segments
_LIBRARIES: Final = ("scikit-image", "scikit-learn", "scipy")
_BLUR: Final = 1.0  # standard deviation in pixels
_SUPERPIXELS: Final = 185
_MIN_SUPERPIXEL: Final = 16  # pixels, in a tiny image
_STARTS: Final = 5  # of which K-means keeps the one of least distortion

Lab: TypeAlias = Float64[np.ndarray, "h w 3"]
Labels: TypeAlias = Integer[np.ndarray, "h w"]
Parameters: TypeAlias = Mapping[str, float]  # under their libraries' names


@dataclass(frozen=True)
class ClassicalBaseline:
    """A classical method on images scaled down to at most `side` pixels in height and width: a `System`.

    The method returns the segment of each pixel of an image in CIELAB for each of `parameters`, from coarse to fine.
    """

    name: str
    method: Callable[[Lab, Sequence[Parameters]], Sequence[Labels]] = field(repr=False)
    parameters: tuple[Parameters, ...]
    side: int

    @property
    def version(self) -> str:
        """Eight digits that change with settings and libraries. Raises `SettingsError` without scikit-learn."""
        with require_extra("evaluation"):
            identity = " ".join(map(version, _LIBRARIES))
        return hashlib.sha256(f"{_REVISION} {identity} {self}".encode()).hexdigest()[:8]

    @property
    def settings(self) -> tuple[str, ...]:
        """The method's parameters, from coarse to fine."""
        return tuple(" ".join(f"{name}={value:g}" for name, value in row.items()) for row in self.parameters)

    def segment(
        self,
        image: UInt8[np.ndarray, "y x 3"],
        true_segments: int = 0,  # noqa: ARG002 - a System's, which no classical method uses
    ) -> Sequence[Integer[np.ndarray, "y x"]]:
        """See `System`: labels from 0 without gaps, scaled back to the image by nearest pixel."""
        thumbnail = Image.fromarray(image)
        thumbnail.thumbnail((self.side, self.side), Image.Resampling.BOX, reducing_gap=None)
        lab = rgb2lab(np.asarray(thumbnail))
        rows, columns = (np.arange(new) * old // new for new, old in zip(image.shape[:2], lab.shape[:2], strict=True))
        small = (np.unique(labels, return_inverse=True)[1] for labels in self.method(lab, self.parameters))
        return [labels.reshape(lab.shape[:2])[np.ix_(rows, columns)] for labels in small]


def felzenszwalb_labels(lab: Lab, parameters: Sequence[Parameters]) -> list[Labels]:
    """Grow minimum spanning trees with an adaptive threshold: Felzenszwalb & Huttenlocher 2004.

    Colours are divided by 100, so that scales are those of images in [0, 1].
    """
    return [felzenszwalb(lab / 100, **row) for row in parameters]


def slic_ncut_labels(lab: Lab, parameters: Sequence[Parameters], *, min_weight: float = 1e-3) -> list[Labels]:
    """Cut the adjacency graph (Shi & Malik 2000) of SLIC superpixels (Achanta et al. 2012), built once.

    An edge weighs `exp(-d² / variance)` for a distance `d` between mean colours, and at least `min_weight`: in a
    disconnected graph the second eigenvector is not defined. BSDS500's val images get at most 176 superpixels; more
    are hardly better, and beyond 201 scikit-image's ARPACK failed for disconnected graphs.
    """
    superpixels = slic(
        lab,
        n_segments=min(_SUPERPIXELS, 2 + lab[..., 0].size // _MIN_SUPERPIXEL),
        compactness=20 / max(np.ptp(lab), 1.0),  # SLIC brings colours to [0, 1]
        sigma=_BLUR,
        convert2lab=False,
        start_label=0,
    )
    if not superpixels.any():  # a single one has no graph
        return [superpixels] * len(parameters)
    graph = rag_mean_color(lab, superpixels, mode="similarity", sigma=85.0)
    for *_, edge in graph.edges(data=True):
        edge["weight"] = max(edge["weight"], min_weight)
    return [cut_normalized(superpixels, graph, **row, num_cuts=30, rng=0) for row in parameters]


def quickshift_labels(lab: Lab, parameters: Sequence[Parameters]) -> list[Labels]:
    """Link each pixel to the nearest of higher density (Vedaldi & Soatto 2008): one tree, cut at each `max_dist`."""
    _, parent, length = quickshift(
        lab, kernel_size=20, ratio=4.0, sigma=_BLUR, max_dist=np.inf, convert2lab=False, return_tree=True
    )
    return [linked(np.asarray(parent), np.asarray(length) <= row["max_dist"]) for row in parameters]


def linked(parent: Labels, kept: Bool[np.ndarray, "h w"]) -> Labels:
    """Return the trees of the pixels' links to their parents (flat indices), only the `kept` links."""
    child = np.flatnonzero(kept)
    links = coo_array((np.ones(len(child)), (child, parent.ravel()[child])), shape=(parent.size, parent.size))
    return connected_components(links, directed=False)[1].reshape(parent.shape)


def kmeans_labels(lab: Lab, parameters: Sequence[Parameters]) -> list[Labels]:
    """Cluster colour, with less weight on lightness, and position, the image's longer side scaled to 3, into `k`.

    Segments are the connected parts of clusters that cover at least `min_part` of the image, see `without_small`.
    """
    height, width = lab.shape[:2]
    y, x = np.mgrid[:height, :width] * 3.0 / max(height, width)
    colour = gaussian(lab, sigma=_BLUR, channel_axis=-1) * [0.3, 1, 1]
    points = torch.from_numpy(np.dstack([colour, y, x]).reshape(-1, 5))
    clusters = {
        k: kmeans_clusters(points, min(int(k), len(points)), starts=_STARTS).numpy().reshape(height, width)
        for k in {row["k"] for row in parameters}
    }
    return [without_small(clusters[row["k"]], row["min_part"]) for row in parameters]


def without_small(clusters: Labels, min_part: float) -> Labels:
    """Return the connected parts of clusters; those below `min_part` of the image become part of the nearest.

    One segment if all are that small.
    """
    parts = label(clusters, background=-1, connectivity=1)
    large = (np.bincount(parts.ravel()) >= min_part * parts.size)[parts]
    if not large.any():
        return np.zeros_like(parts)
    nearest = distance_transform_edt(~large, return_distances=False, return_indices=True)
    return parts[tuple(nearest)]


def _rows(**columns: Sequence[float]) -> tuple[Parameters, ...]:
    """Return the parameters of each setting from each parameter's values."""
    return tuple(dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))


_FELZENSZWALB: Final = _rows(
    scale=(1000, 600, 260, 200, 400, 470, 90, 300, 400, 140, 300, 180, 280, 200),
    sigma=(1.6, 1.2, 2.2, 1.2, 1.0, 0.8, 1.2, 0.5, 0.5, 1.2, 0.8, 0.8, 0.8, 0.8),
    min_size=(200, 1100, 800, 1000, 350, 350, 950, 500, 300, 600, 330, 370, 140, 60),
)
_SLIC_NCUT: Final = _rows(thresh=(0.002, 0.004, 0.008, 0.012, 0.018, 0.024, 0.032, 0.042, 0.055, 0.075, 0.1, 0.15))
_QUICKSHIFT: Final = _rows(max_dist=(90, 60, 45, 35, 28, 24, 20, 17, 14, 12, 10, 8))
_KMEANS: Final = _rows(
    k=(20, 2, 4, 3, 3, 6, 3, 4, 4, 6, 6, 5, 8),
    min_part=(0.06, 0.04, 0.06, 0.04, 0.02, 0.04, 0.01, 0.02, 0.01, 0.02, 0.01, 0.005, 0.005),
)

CLASSICAL_BASELINES: Final[Mapping[str, System]] = {
    baseline.name: baseline
    for baseline in (
        ClassicalBaseline("felzenszwalb", felzenszwalb_labels, _FELZENSZWALB, side=240),
        ClassicalBaseline("slic-ncut", slic_ncut_labels, _SLIC_NCUT, side=160),
        ClassicalBaseline("quickshift", quickshift_labels, _QUICKSHIFT, side=120),
        ClassicalBaseline("kmeans", kmeans_labels, _KMEANS, side=160),
    )
}
