"""Polygons of one ring."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64, UInt16

from walkcut.errors import RequestError
from walkcut.labelstudio.shapes.numbers import MAX_PERCENT, number
from walkcut.masks.keyhole import keyhole
from walkcut.masks.polygons import polygons, signed_area
from walkcut.masks.raster import Mask, Size, fill_polygon


def encode(masks: Iterable[Mask], tolerance: float) -> Iterator[dict[str, Any]]:
    """Yield the value of each mask, all of one image; see `percent_rings`."""
    return ({"points": ring.tolist(), "closed": True} for ring in percent_rings(masks, tolerance))


def decode(value: Mapping[str, Any], size: Size) -> Mask:
    """Return the mask of a polygon of at least three points. Raises `RequestError`."""
    points = value.get("points")
    if not isinstance(points, list) or len(points) < 3 or not all(isinstance(p, list) and len(p) == 2 for p in points):
        raise RequestError("a polygon needs three points, each an x and a y")
    return fill_percent([(x, y) for x, y in points], size)


def percent_rings(masks: Iterable[Mask], tolerance: float) -> Iterator[Float64[np.ndarray, "_ 2"]]:
    """Yield a ring (x, y) around each mask, all of one image, in percent of its sides.

    Each mask is one connected part, of which a hole is cut out by a slit (`keyhole`). Those without overlap share their
    borders exactly, at most `tolerance` pixels from the true ones.
    """
    layers, places = (
        list[UInt16[np.ndarray, "y x"]](),
        list[tuple[int, int]](),
    )  # of each mask: its layer and its number
    for region, mask in enumerate(masks, 1):
        free = (index for index, layer in enumerate(layers) if not layer[mask].any())
        index = next(free, len(layers))
        if index == len(layers):
            layers.append(np.zeros(mask.shape, np.uint16))
        layers[index][mask] = region
        places.append((index, region))
    rings = {
        (index, polygon.region): keyhole(polygon.rings)
        for index, layer in enumerate(layers)
        for polygon in sorted(polygons(layer, tolerance), key=lambda polygon: signed_area(polygon.rings[0]))
    }  # of several parts the largest
    for place in places:
        height, width = layers[place[0]].shape
        yield rings[place] * (100 / np.array([width, height]))


def fill_percent(points: Sequence[tuple[object, object]], size: Size) -> Mask:
    """Return the mask of corners (x, y) in percent of an image of `size`. Raises `RequestError` for other values."""
    height, width = size
    corners = [(number(x, MAX_PERCENT) * width / 100, number(y, MAX_PERCENT) * height / 100) for x, y in points]
    return fill_polygon(corners, size)
