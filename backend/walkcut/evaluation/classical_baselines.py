"""Classical segmenters for comparison: scikit-image's and scikit-learn's, tuned on BSDS500's val images.

All work in CIELAB on an image scaled down so that no method takes longer than a second; labels are scaled back by
nearest pixel. They were tuned for segmentation covering, of the best setting (ODS) first and of each image's best
(OIS) second: Felzenszwalb and the normalised cut are better in CIELAB than in RGB, and no better with twice as many
pixels; quickshift needs kernels far wider than its default; K-means is best with hardly any weight on position.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Final

import numpy as np
from jaxtyping import Integer, UInt8
from PIL import Image
from skimage.color import rgb2lab

from walkcut.errors import require_extra
from walkcut.evaluation.classical_methods import (
    ClassicalMethod,
    Clusters,
    ColourKMeans,
    CutCost,
    Felzenszwalb,
    LinkLength,
    Quickshift,
    RegionSize,
    SlicNCut,
)
from walkcut.evaluation.systems import System

_REVISION: Final = 2  # raise it when the same settings give other segments
_LIBRARIES: Final = ("scikit-image", "scikit-learn", "scipy")


@dataclass(frozen=True)
class ClassicalBaseline:
    """A classical method on images scaled down to at most `side` pixels in height and width: a `System`."""

    name: str
    method: ClassicalMethod
    side: int

    @property
    def version(self) -> str:
        """Eight hexadecimal digits that change with the settings and the libraries' versions.

        Raises `SettingsError` without scikit-learn.
        """
        with require_extra("evaluation"):
            identity = " ".join(map(version, _LIBRARIES))
        return hashlib.sha256(f"{_REVISION} {identity} {self}".encode()).hexdigest()[:8]

    @property
    def settings(self) -> tuple[str, ...]:
        """The method's parameters, from coarse to fine."""
        return tuple(str(setting) for setting in self.method.settings)

    def segment(
        self,
        image: UInt8[np.ndarray, "y x 3"],
        true_segments: int = 0,  # noqa: ARG002 - a System's, which no classical method uses
    ) -> Sequence[Integer[np.ndarray, "y x"]]:
        """See `System`."""
        thumbnail = Image.fromarray(image)
        thumbnail.thumbnail((self.side, self.side), Image.Resampling.BOX, reducing_gap=None)
        lab = rgb2lab(np.asarray(thumbnail))
        return [_enlarged(labels, image.shape[:2]) for labels in self.method.partitions(lab)]


def _enlarged(labels: Integer[np.ndarray, "h w"], size: tuple[int, ...]) -> Integer[np.ndarray, "y x"]:
    """Return labels from 0 without gaps, at a larger size."""
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


CLASSICAL_BASELINES: Final[Mapping[str, System]] = {
    baseline.name: baseline
    for baseline in (
        ClassicalBaseline("felzenszwalb", _FELZENSZWALB, side=240),
        ClassicalBaseline("slic-ncut", _SLIC_NCUT, side=160),
        ClassicalBaseline("quickshift", _QUICKSHIFT, side=120),
        ClassicalBaseline("kmeans", _KMEANS, side=160),
    )
}
