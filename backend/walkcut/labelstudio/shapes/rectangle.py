"""Rectangles, which may be rotated clockwise about their upper left corner."""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool

from walkcut.labelstudio.shapes.numbers import length, position, rotation
from walkcut.masks.raster import Mask, Size, fill_polygon


def encode(masks: Iterable[Mask], _tolerance: float) -> Iterator[dict[str, Any]]:
    """Yield the value of the bounding box of each mask."""
    for mask in masks:
        (top, bottom), (left, right) = (_span(np.any(mask, axis)) for axis in (1, 0))
        height, width = mask.shape
        yield {
            "x": 100 * left / width,
            "y": 100 * top / height,
            "width": 100 * (right - left) / width,
            "height": 100 * (bottom - top) / height,
            "rotation": 0,
        }


def decode(value: Mapping[str, Any], size: Size) -> Mask:
    """Return the mask of a rectangle. Raises `RequestError`."""
    x, y = position(value, size)
    width, height = length(value, "width", size[1]), length(value, "height", size[0])
    sine, cosine = math.sin(rotation(value)), math.cos(rotation(value))
    right, down = (cosine * width, sine * width), (-sine * height, cosine * height)
    corners = [(0.0, 0.0), right, (right[0] + down[0], right[1] + down[1]), down]
    return fill_polygon([(x + dx, y + dy) for dx, dy in corners], size)


def _span(inside: Bool[np.ndarray, " n"]) -> tuple[int, int]:
    """Return the first index inside, and the one after the last."""
    indices = np.flatnonzero(inside)
    return int(indices[0]), int(indices[-1]) + 1
