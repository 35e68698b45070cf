"""Ground truth files: label images as PNG, and BSDS500's `.mat` files with segmentations by several people."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from jaxtyping import Int64
from PIL import Image
from scipy.io import loadmat, whosmat
from scipy.io.matlab import MatReadError

from walkcut.errors import ImageDecodeError
from walkcut.images.decode import DECODE_ERRORS

IGNORE: Final = -1  # class of pixels that are not scored
_UNKNOWN: Final = -2
_LABEL_MODES: Final = frozenset({"1", "L", "P", "I", "I;16"})
_GREY_SCALES: Final = {"L;2": 85, "L;4": 17}  # Pillow scales greys of 2 and 4 bits to 0 … 255: divide by this
_TRUTH_ERRORS: Final = (*DECODE_ERRORS, MatReadError, NotImplementedError)  # the last for MATLAB's newest format


@dataclass(frozen=True)
class LabelImage:
    """A PNG of labels, grey values or palette indices; without `classes` of the labels they only separate parts."""

    path: Path
    classes: Mapping[int, int] | None = None

    def read(self) -> Int64[np.ndarray, "y x"]:
        """Return the class of each pixel, or `IGNORE`. Raises `ImageDecodeError` for a damaged or foreign file."""
        labels = _read_labels(self.path)
        if self.classes is None:
            return labels
        class_of = np.full(max(int(labels.max()), *self.classes) + 1, _UNKNOWN, np.int64)
        class_of[list(self.classes)] = list(self.classes.values())
        classes = class_of[labels]
        if (classes == _UNKNOWN).any():
            raise ImageDecodeError(
                f"the label image {self.path} holds {labels[classes == _UNKNOWN][0]}, which is not a label of this "
                "data set: put the original file there, or choose the data set that it belongs to"
            )
        return classes


@dataclass(frozen=True)
class HumanSegmentation:
    """An image's segmentation by one person (counted from 0): an entry of a BSDS500 `.mat` file."""

    path: Path
    person: int

    def read(self) -> Int64[np.ndarray, "y x"]:
        """Return the segment of each pixel, from 1. Raises `ImageDecodeError` for a damaged or foreign file."""
        with _reading(self.path):
            people = loadmat(self.path, variable_names=["groundTruth"])["groundTruth"]
            return np.asarray(people[0, self.person]["Segmentation"][0, 0], np.int64)


Truth = LabelImage | HumanSegmentation


def human_segmentations(path: Path) -> tuple[HumanSegmentation, ...]:
    """Return all segmentations of a BSDS500 file, not yet read. Raises as `HumanSegmentation.read`."""
    with _reading(path):
        people = {variable: shape[1] for variable, shape, _ in whosmat(path)}["groundTruth"]
        return tuple(HumanSegmentation(path, person) for person in range(people))


def _read_labels(path: Path) -> Int64[np.ndarray, "y x"]:
    """Return the labels of a PNG of one channel: palette indices, not their colours."""
    with _reading(path), Image.open(path, formats=["PNG"]) as image:
        mode, scale = image.mode, _GREY_SCALES.get(str(image.tile[0].args), 1)
        labels = np.asarray(image)
    if mode not in _LABEL_MODES:
        raise ImageDecodeError(
            f"the label image {path} holds colours ({mode}): save it with one channel, of grey values or palette "
            "indices, that holds the labels"
        )
    return labels.astype(np.int64) // scale


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn an error of a reader into an `ImageDecodeError` that names the file."""
    try:
        yield
    except _TRUTH_ERRORS as error:
        raise ImageDecodeError(
            f"the ground truth {path} cannot be read ({error}): put the original file there"
        ) from error
