"""Regions as polygons: borders traced along the edges of pixels, then simplified to a tolerance."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64, Shaped, UInt16
from skimage.measure import label

from walkcut.errors import BrushError
from walkcut.masks.borders import Points, Ring, trace
from walkcut.masks.bounds import bounding_box
from walkcut.masks.simplify import simplify

DEFAULT_TOLERANCE = 1.0  # pixels
_MAX_LOSS = 0.1  # of a part's area, if its polygon were everywhere as far from its border as it may be

_Masks = Sequence[Bool[np.ndarray, "y x"]]


@dataclass(frozen=True)
class Polygon:
    """One connected part of a region: the rings of corners (x, y), first around the part, then around its holes.

    The rings are simple; two of them may touch at a corner. On the screen the first runs clockwise, the others
    anticlockwise.
    """

    region: int
    rings: Sequence[Points]


def polygons(labels: UInt16[np.ndarray, "y x"], tolerance: float) -> list[Polygon]:
    """Return the connected parts of all regions but 0, in the order of their numbers, as valid polygons.

    Under the even-odd rule a pixel with its centre on the wrong side is at most `tolerance` pixels from the region's
    true border, and less for small and thin parts, see `_tolerances`; with tolerance 0 there is none. A border between
    two regions is simplified once, for both: neighbours share it exactly and overlap nowhere. No region and no hole is
    lost.
    """
    if not labels.size:
        return []
    parts = label(labels, connectivity=1, background=0)
    region_of_part = np.zeros(int(parts.max()) + 1, np.int64)
    region_of_part[parts] = labels
    rings, borders = trace(parts)
    lines = simplify(borders, _tolerances(rings, borders, np.bincount(parts.ravel()), tolerance))
    rings_of_part = defaultdict[int, list[Points]](list)
    for ring in rings:
        points, part_rings = ring.points(lines), rings_of_part[ring.part]
        part_rings.insert(0 if signed_area(points) > 0 else len(part_rings), points)
    order = sorted(rings_of_part, key=lambda part: (region_of_part[part], part))
    return [Polygon(int(region_of_part[part]), rings_of_part[part]) for part in order]


def _tolerances(
    rings: Sequence[Ring], borders: Sequence[Points], areas: Int64[np.ndarray, " p"], tolerance: float
) -> Float64[np.ndarray, " b"]:
    """Return the tolerance of each border: at most `_MAX_LOSS`·area/perimeter of the parts on both of its sides.

    In the mean a polygon deviates by less than a fifth of its tolerance: its intersection over union with its part is
    above 0.97, however small or thin that is (measured on human segmentations and smoothed noise).
    """
    lengths = np.array([np.abs(np.diff(border, axis=0)).sum() for border in borders])
    perimeters = np.zeros(areas.size)
    for ring in rings:
        perimeters[ring.part] += lengths[ring.borders].sum()
    of_part = np.minimum(tolerance, _MAX_LOSS * areas / np.maximum(perimeters, 1))
    of_border = np.full(len(borders), tolerance)
    for ring in rings:
        of_border[ring.borders] = np.minimum(of_border[ring.borders], of_part[ring.part])
    return of_border


def mask_polygons(masks: _Masks, tolerance: float) -> list[Polygon]:
    """Return the polygon of each mask, with the mask's index as `region`.

    Masks that do not overlap are neighbours in the sense of `polygons`. Masks that overlap are simplified apart.
    Raises `BrushError` for a mask that is not one part connected along edges of pixels.
    """
    found = [polygon for layer in _layers(masks) for polygon in _layer_polygons(masks, layer, tolerance)]
    found.sort(key=lambda polygon: polygon.region)
    counts = np.bincount([polygon.region for polygon in found], minlength=len(masks))
    for index in np.flatnonzero(counts != 1):
        raise BrushError(f"mask {index} has {counts[index]} connected parts: pass each part as a mask")
    return found


def _layer_polygons(masks: _Masks, layer: Sequence[int], tolerance: float) -> list[Polygon]:
    """Return the polygons of masks that do not overlap."""
    labels = np.zeros(masks[0].shape, np.uint16)
    for number, index in enumerate(layer, 1):
        box = bounding_box(masks[index])
        labels[box][masks[index][box]] = number
    rows, columns = bounding_box(labels != 0)
    corner = np.array([columns.start, rows.start])
    return [
        Polygon(layer[polygon.region - 1], [ring + corner for ring in polygon.rings])
        for polygon in polygons(labels[rows, columns], tolerance)
    ]


def _layers(masks: _Masks) -> list[list[int]]:
    """Return the indices of the masks in layers: a mask is in the first layer in which it overlaps none before it."""
    layers: list[list[int]] = []
    covered: list[Bool[np.ndarray, "y x"]] = []
    for index, mask in enumerate(masks):
        box = bounding_box(mask)
        free = (layer for layer, pixels in enumerate(covered) if not (pixels[box] & mask[box]).any())
        layer = next(free, len(layers))
        if layer == len(layers):
            layers.append([])
            covered.append(np.zeros(mask.shape, np.bool_))
        layers[layer].append(index)
        covered[layer][box] |= mask[box]
    return layers


def signed_area(points: Shaped[np.ndarray, "n 2"]) -> float:
    """Return a ring's area in pixels, negative if it runs anticlockwise on the screen (Gauss's formula).

    >>> signed_area(np.array([[0, 0], [2, 0], [2, 1], [0, 1]]))
    2.0
    """
    x, y = points.T
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum()) / 2
