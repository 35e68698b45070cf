"""Rectangle regions, rotated clockwise about their upper left corner."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from walkcut.labelstudio.shapes.percent import Mask, Size, length, position, rotation, to_percent
from walkcut.masks.bounds import bounding_box
from walkcut.masks.raster import fill_polygon


def encode(masks: Sequence[Mask], tolerance: float) -> list[dict[str, Any]]:  # noqa: ARG001 - boxes are exact
    """Return the value of each mask's bounding box."""
    return [_bounding_box(mask) for mask in masks]


def _bounding_box(mask: Mask) -> dict[str, Any]:
    rows, columns = bounding_box(mask)
    corners = np.array([[columns.start, rows.start], [columns.stop - columns.start, rows.stop - rows.start]])
    (x, y), (width, height) = to_percent(corners, mask.shape).tolist()
    return {"x": x, "y": y, "width": width, "height": height, "rotation": 0}


def decode(value: Mapping[str, Any], size: Size) -> Mask:
    """Return the mask of a rectangle."""
    x, y = position(value, size)
    width, height = length(value, "width", size[1]), length(value, "height", size[0])
    sine, cosine = math.sin(rotation(value)), math.cos(rotation(value))
    right, down = (cosine * width, sine * width), (-sine * height, cosine * height)
    corners = [(0.0, 0.0), right, (right[0] + down[0], right[1] + down[1]), down]
    return fill_polygon([np.array(corners) + np.array([x, y])], size)
