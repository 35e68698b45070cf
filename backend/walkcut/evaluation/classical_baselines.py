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
    ColourKMeans,
    Felzenszwalb,
    FelzenszwalbSetting,
    KMeansSetting,
    NCutSetting,
    Quickshift,
    QuickshiftSetting,
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
    tuple(
        map(
            FelzenszwalbSetting,
            (1000, 600, 260, 200, 400, 470, 90, 300, 400, 140, 300, 180, 280, 200),
            (1.6, 1.2, 2.2, 1.2, 1.0, 0.8, 1.2, 0.5, 0.5, 1.2, 0.8, 0.8, 0.8, 0.8),
            (200, 1100, 800, 1000, 350, 350, 950, 500, 300, 600, 330, 370, 140, 60),
        )
    )
)
_SLIC_NCUT: Final = SlicNCut(
    tuple(map(NCutSetting, (0.002, 0.004, 0.008, 0.012, 0.018, 0.024, 0.032, 0.042, 0.055, 0.075, 0.1, 0.15)))
)
_QUICKSHIFT: Final = Quickshift(tuple(map(QuickshiftSetting, (90, 60, 45, 35, 28, 24, 20, 17, 14, 12, 10, 8))))
_KMEANS: Final = ColourKMeans(
    tuple(
        map(
            KMeansSetting,
            (20, 2, 4, 3, 3, 6, 3, 4, 4, 6, 6, 5, 8),
            (0.06, 0.04, 0.06, 0.04, 0.02, 0.04, 0.01, 0.02, 0.01, 0.02, 0.01, 0.005, 0.005),
        )
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
