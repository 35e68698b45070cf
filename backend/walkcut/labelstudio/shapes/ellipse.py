"""Ellipses, which may be rotated clockwise about their centre."""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from walkcut.labelstudio.shapes.numbers import length, position, rotation
from walkcut.masks.raster import Mask, Size, fill_ellipse


def encode(masks: Iterable[Mask], _tolerance: float) -> Iterator[dict[str, Any]]:
    """Yield the value of the ellipse with the area, the centre and the axes of each mask.

    An ellipse of uniform density has a variance of a quarter of its squared radius along each axis.
    """
    for mask in masks:
        y, x = np.nonzero(mask)
        covariance = np.cov(np.stack([x, y]), bias=True) + np.eye(2) / 12  # of pixels, which are squares
        (minor, major), axes = np.linalg.eigh(covariance)
        scale = math.sqrt(x.size / (math.pi * math.sqrt(minor * major)))
        angle = math.degrees(math.atan2(axes[1, 1], axes[0, 1]))
        height, width = mask.shape
        yield {
            "x": 100 * (float(x.mean()) + 0.5) / width,
            "y": 100 * (float(y.mean()) + 0.5) / height,
            "radiusX": 100 * scale * math.sqrt(major) / width,
            "radiusY": 100 * scale * math.sqrt(minor) / height,
            "rotation": angle,
        }


def decode(value: Mapping[str, Any], size: Size) -> Mask:
    """Return the mask of an ellipse. Raises `RequestError`."""
    x, y = position(value, size)
    radii = length(value, "radiusX", size[1]), length(value, "radiusY", size[0])
    return fill_ellipse(x, y, radii, size, rotation=rotation(value))
