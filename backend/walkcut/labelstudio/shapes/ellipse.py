"""Ellipse regions, rotated clockwise about their centre."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from walkcut.labelstudio.shapes.percent import Mask, Size, length, position, rotation
from walkcut.masks.raster import fill_ellipse


def encode(masks: Sequence[Mask], tolerance: float) -> list[dict[str, Any]]:  # noqa: ARG001 - from all pixels
    """Return the value of the ellipse with each mask's centre and second moments."""
    return [_moment_ellipse(mask) for mask in masks]


def _moment_ellipse(mask: Mask) -> dict[str, Any]:
    """Return the ellipse of the same centre and moments; of an ellipse, which has a radius of 2σ, its own radii."""
    y, x = np.nonzero(mask)
    covariance = np.cov([x, y], bias=True) + np.eye(2) / 12  # 1/12: the pixel's own
    variances, axes = np.linalg.eigh(covariance)
    minor, major = (2 * math.sqrt(variance) for variance in variances)
    height, width = mask.shape
    return {
        "x": float(x.mean() + 0.5) * 100 / width,
        "y": float(y.mean() + 0.5) * 100 / height,
        "radiusX": major * 100 / width,
        "radiusY": minor * 100 / height,
        "rotation": math.degrees(math.atan2(axes[1, 1], axes[0, 1])) % 180,
    }


def decode(value: Mapping[str, Any], size: Size) -> Mask:
    """Return the mask of an ellipse."""
    radii = length(value, "radiusX", size[1]), length(value, "radiusY", size[0])
    return fill_ellipse(position(value, size), radii, size, rotation=rotation(value))
