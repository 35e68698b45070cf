"""Ground truth in files: label images as PNG, and the segmentations by several people in BSDS500's `.mat` files."""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from jaxtyping import Int64
from PIL import Image
from scipy.io import loadmat, whosmat
from scipy.io.matlab import MatReadError

from walkcut.errors import ImageDecodeError

IGNORE: Final = -1  # the class of pixels that are not scored
_UNKNOWN: Final = -2
_NUMBER_MODES: Final = frozenset({"1", "L", "P", "I", "I;16"})
_STRETCHED: Final = {"L;2": 85, "L;4": 17}  # Pillow stretches greys of 2 and 4 bits to 0 … 255: divide by this
# What Pillow and SciPy raise on damaged files, and on MATLAB's newest format.
_DECODE_ERRORS: Final = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    NotImplementedError,
    MatReadError,
    zlib.error,
    Image.DecompressionBombError,
)


@dataclass(frozen=True)
class LabelImage:
    """A PNG whose pixels are numbers, grey of any depth or indices of a palette.

    `classes` says each number's class; without it the numbers only tell parts from each other.
    """

    path: Path
    classes: Mapping[int, int] | None = None

    def read(self) -> Int64[np.ndarray, "y x"]:
        """The class of each pixel, or `IGNORE`. Raises `ImageDecodeError` for a file that is none, or damaged."""
        numbers = _numbers(self.path)
        if self.classes is None:
            return numbers
        table = np.full(max(int(numbers.max()), *self.classes) + 1, _UNKNOWN, np.int64)
        table[list(self.classes)] = list(self.classes.values())
        labels = table[numbers]
        if (labels == _UNKNOWN).any():
            raise ImageDecodeError(
                f"the label image {self.path} holds {numbers[labels == _UNKNOWN][0]}, which is no label of this data "
                "set. Put the original file there, or choose the data set that it belongs to."
            )
        return labels


@dataclass(frozen=True)
class HumanSegmentation:
    """What one person (counted from 0) made of an image: an entry of a BSDS500 `.mat` file."""

    path: Path
    person: int

    def read(self) -> Int64[np.ndarray, "y x"]:
        """The part of each pixel, from 1. Raises `ImageDecodeError` for a file that is none, or damaged."""
        try:
            people = loadmat(self.path, variable_names=["groundTruth"])["groundTruth"]
            labels = np.asarray(people[0, self.person]["Segmentation"][0, 0], np.int64)
        except _DECODE_ERRORS as error:
            raise _damaged(self.path, error) from error
        return labels


Truth = LabelImage | HumanSegmentation


def human_segmentations(path: Path) -> tuple[HumanSegmentation, ...]:
    """All segmentations in a BSDS500 file, counted without reading them. Raises as `HumanSegmentation.read`."""
    try:
        people = {variable: shape[1] for variable, shape, _ in whosmat(path)}["groundTruth"]
    except _DECODE_ERRORS as error:
        raise _damaged(path, error) from error
    return tuple(HumanSegmentation(path, person) for person in range(people))


def _numbers(path: Path) -> Int64[np.ndarray, "y x"]:
    """The numbers in a PNG of one channel, never the colours that they stand for."""
    try:
        with Image.open(path, formats=["PNG"]) as image:
            mode, stretch = image.mode, _STRETCHED.get(str(image.tile[0].args), 1)
            numbers = np.asarray(image)
    except _DECODE_ERRORS as error:
        raise _damaged(path, error) from error
    if mode not in _NUMBER_MODES:
        raise ImageDecodeError(
            f"the label image {path} holds colours ({mode}). Save it with one channel, grey or with a palette, whose "
            "numbers are the labels."
        )
    return numbers.astype(np.int64) // stretch


def _damaged(path: Path, error: Exception) -> ImageDecodeError:
    return ImageDecodeError(f"the ground truth {path} cannot be read: {error}. Put the original file there.")
