"""Ellipse regions, rotated clockwise about their centre."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from walkcut.labelstudio.shapes.percent import Mask, Size, length, position, rotation, to_percent
from walkcut.masks.bounds import bounding_box
from walkcut.masks.raster import fill_ellipse


def encode(masks: Sequence[Mask], tolerance: float) -> list[dict[str, Any]]:  # noqa: ARG001 - from all pixels
    """Return the value of the ellipse with each mask's centre and second moments."""
    return [_moment_ellipse(mask) for mask in masks]


def _moment_ellipse(mask: Mask) -> dict[str, Any]:
    """Return the ellipse of the same centre and moments; of an ellipse, which has a radius of 2σ, its own radii."""
    rows, columns = bounding_box(mask)
    points = np.argwhere(mask[rows, columns])[:, ::-1] + np.array([columns.start, rows.start])
    covariance = np.cov(points.T, bias=True) + np.eye(2) / 12  # 1/12: the pixel's own
    variances, axes = np.linalg.eigh(covariance)
    (minor, major), (height, width) = 2 * np.sqrt(variances), mask.shape
    x, y = to_percent(points.mean(0, keepdims=True) + 0.5, mask.shape)[0].tolist()
    angle = math.degrees(math.atan2(axes[1, 1], axes[0, 1])) % 180
    return {
        "x": x,
        "y": y,
        "radiusX": float(major) * 100 / width,
        "radiusY": float(minor) * 100 / height,
        "rotation": angle,
    }


def decode(value: Mapping[str, Any], size: Size) -> Mask:
    """Return the mask of an ellipse."""
    radii = length(value, "radiusX", size[1]), length(value, "radiusY", size[0])
    return fill_ellipse(position(value, size), radii, size, rotation=rotation(value))
