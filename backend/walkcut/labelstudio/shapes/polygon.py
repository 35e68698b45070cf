"""Polygon regions: closed rings of points in percent."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from walkcut.errors import RequestError
from walkcut.labelstudio.shapes.percent import Mask, Size, number, to_percent
from walkcut.masks.keyhole import keyhole
from walkcut.masks.polygons import mask_polygons
from walkcut.masks.raster import fill_polygon


def encode(masks: Sequence[Mask], tolerance: float) -> list[dict[str, Any]]:
    """Return the value of each mask, all of one image together: see `outlines`."""
    return [{"points": outline.tolist(), "closed": True} for outline in outlines(masks, tolerance)]


def outlines(masks: Sequence[Mask], tolerance: float) -> list[Float[np.ndarray, "_ 2"]]:
    """Return a ring of points (x, y in percent) for each mask, which must be one part connected along edges of pixels.

    Neighbours share their border exactly, where masks do not overlap; a slit leads to each hole. Raises `BrushError`
    for a mask of no part or several.
    """
    return [to_percent(keyhole(found.rings), masks[0].shape) for found in mask_polygons(masks, tolerance)]


def decode(value: Mapping[str, Any], size: Size) -> Mask:
    """Return the mask of a polygon of at least three points."""
    points = value.get("points")
    if not isinstance(points, list) or len(points) < 3 or not all(isinstance(p, list) and len(p) == 2 for p in points):
        raise RequestError("a polygon needs three points, each an x and a y")
    height, width = size
    corners = [(number(x) * width / 100, number(y) * height / 100) for x, y in points]
    return fill_polygon([np.array(corners)], size)
