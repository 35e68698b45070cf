"""Polygons with holes as one ring: a slit joins each hole to the border at its left."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import shapely
from jaxtyping import Float, Int64
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from walkcut.masks.borders import Points

SLIT_WIDTH: Final = 0.01  # pixels


def keyhole(rings: Sequence[Points]) -> Float[np.ndarray, "_ 2"]:
    """Return one simple ring for a polygon: its outer ring, joined with the rings of its holes.

    A slit, at most 0.01 pixels wide, leads from the leftmost corner of each hole horizontally to the first border at
    its left. Rings that touch at a corner are joined there instead. As corners are integers, no pixel's centre is in a
    slit: under the even-odd rule the pixels inside are the same.

    >>> keyhole([np.array([[0, 0], [3, 0], [3, 3], [0, 3]]), np.array([[1, 1], [1, 2], [2, 2], [2, 1]])]).shape
    (12, 2)
    """
    if len(rings) == 1:
        return rings[0].astype(np.float64)
    polygon = shapely.Polygon(rings[0], rings[1:])
    longest = max(float(np.hypot(*(ring - np.roll(ring, 1, 0)).T).max()) for ring in rings)
    # A corner off a line is at least 1 / longest away from it: a slit must not cut through the gap.
    width = min(SLIT_WIDTH, 0.25 / longest)
    boxes = shapely.union_all(shapely.box(*(_slits(rings) + np.array([-1, -1, 1, 1]) * width / 2).T))
    parts = shapely.get_parts(polygon.difference(boxes))
    joined = parts[np.argmax(shapely.area(parts))]  # others are chips at the ends of slits, without a pixel's centre
    return shapely.get_coordinates(shapely.get_exterior_ring(joined))[:-1]


def _slits(rings: Sequence[Points]) -> Float[np.ndarray, "_ 4"]:
    """Return the slits as boxes (left, top, right, bottom) without width: a corner where rings touch is one of them."""
    points = np.concatenate(rings)
    ring_of_point = np.repeat(np.arange(len(rings)), [len(ring) for ring in rings])
    touching, groups = _touching(points, ring_of_point)
    group_of_point = groups[ring_of_point]
    in_order = np.lexsort((*points.T[::-1], group_of_point))  # by group, then from the left
    leftmost = in_order[np.flatnonzero(np.diff(group_of_point[in_order], prepend=-1))]
    outer = groups[0]
    tips = points[leftmost[group_of_point[leftmost] != outer]]
    hits = _first_hits(rings, tips)
    boxes = np.stack([hits, tips[:, 1], tips[:, 0], tips[:, 1]], 1)
    return np.concatenate([boxes, np.tile(touching, 2)])


def _touching(points: Points, ring_of_point: Int64[np.ndarray, " p"]) -> tuple[Points, Int64[np.ndarray, " r"]]:
    """Return the corners where two rings touch, and for each ring the group of rings that it touches."""
    corners, corner_of_point, counts = np.unique(points, axis=0, return_inverse=True, return_counts=True)
    corner_of_point = corner_of_point.ravel()
    order = np.argsort(corner_of_point, kind="stable")
    first = np.flatnonzero(np.diff(corner_of_point[order], prepend=-1))[counts > 1]
    pairs = ring_of_point[order[first]], ring_of_point[order[first + 1]]
    count = int(ring_of_point[-1]) + 1
    _, groups = connected_components(coo_array((np.ones(len(first)), pairs), (count, count)), directed=False)
    return corners[counts > 1], groups.astype(np.int64)


def _first_hits(rings: Sequence[Points], tips: Points) -> Float[np.ndarray, " t"]:
    """Return the x of the first border at the left of each tip, on the tip's row of corners."""
    starts = np.concatenate(rings)
    stops = np.concatenate([np.roll(ring, -1, 0) for ring in rings])
    top, bottom = np.minimum(starts[:, 1], stops[:, 1]), np.maximum(starts[:, 1], stops[:, 1])
    rows = bottom - top + 1
    line = np.repeat(np.arange(len(starts)), rows)
    y = np.arange(line.size) - np.repeat(np.cumsum(rows) - rows, rows) + top[line]
    is_needed = np.isin(y, tips[:, 1])
    line, y = line[is_needed], y[is_needed]
    chord = stops - starts
    along = (y - starts[line, 1]) * chord[line, 0] / np.where(chord[line, 1], chord[line, 1], 1)
    # Where a line is horizontal its ends are those of its neighbours too.
    x = starts[line, 0] + along
    order = np.lexsort((x, y))
    key_x, key_y = x[order], y[order]
    span = float(starts[:, 0].max()) + 2
    nth = np.searchsorted(key_y * span + key_x, tips[:, 1] * span + tips[:, 0]) - 1
    return key_x[nth]
