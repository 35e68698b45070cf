"""Polygons with holes as one ring: a slit joins each hole to the border at its left."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Bool, Float, Int64
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from walkcut.masks.borders import Points

SLIT_WIDTH: Final = 0.01  # pixels

_ROUNDING = 1e-9  # of an angle


@dataclass(frozen=True)
class _Slits:
    """Slits between two points each, given by their indices among the `points` of all rings; `ring` is each point's."""

    points: Float[np.ndarray, "p 2"]
    ring: Int64[np.ndarray, " p"]
    tips: Int64[np.ndarray, " s"]  # at the right end
    hits: Int64[np.ndarray, " s"]  # at the left end


@dataclass(frozen=True)
class _Rays:
    """Edges as seen from the points at their ends, at an angle, where they leave or arrive.

    Edges are the lines of rings, by the index of their start, then each slit to the right and to the left.
    """

    point: Int64[np.ndarray, " r"]
    edge: Int64[np.ndarray, " r"]
    angle: Float[np.ndarray, " r"]
    arrives: Bool[np.ndarray, " r"]


def keyhole(rings: Sequence[Points]) -> Float[np.ndarray, "_ 2"]:
    """Return one simple ring for a polygon: its outer ring, joined with the rings of its holes.

    A slit, at most 0.01 pixels wide, leads from the leftmost corner of each hole horizontally to the first border at
    its left. Rings that touch at a corner are joined there instead. As corners are integers, no pixel's centre is in a
    slit: under the even-odd rule the pixels inside are the same.

    The rings must run as those of a `Polygon`. Around each corner, borders and slits take turns with sectors of the
    polygon: the new ring follows each border to the next one at the other side of the sector, and cuts the corner.

    >>> keyhole([np.array([[0, 0], [3, 0], [3, 3], [0, 3]]), np.array([[1, 1], [1, 2], [2, 2], [2, 1]])]).shape
    (12, 2)
    """
    if len(rings) == 1:
        return rings[0].astype(np.float64)
    points, ring = np.concatenate(rings), np.repeat(np.arange(len(rings)), [len(ring) for ring in rings])
    chords = points[_following(ring)] - points
    # A corner off a line is at least 1 / longest away from it: a slit must not cut through the gap.
    radius = min(SLIT_WIDTH, 0.25 / float(np.hypot(*chords.T).max())) / 2
    successors, corners, is_kept = _sectors(_slits(points, ring), radius)
    order = [0]
    while following := successors[order[-1]]:
        order.append(following)
    return corners[order][is_kept[order]]


def _following(group: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """Return the index after each, given groups of indices in a row; after a group's last comes its first."""
    starts = np.flatnonzero(np.diff(group, prepend=-1))
    following = np.arange(1, group.size + 1)
    following[np.append(starts[1:], group.size) - 1] = starts
    return following


def _slits(points: Points, ring: Int64[np.ndarray, " p"]) -> _Slits:
    """Return a slit for each group of rings that touch, but for the outer one's; hits on a line become points."""
    tips = _tips(points, ring)
    following = _following(ring)
    line, x = _first_hits(points, points[following], points[tips])
    positions = np.stack([x, points[tips, 1]], 1)
    is_start, is_stop = ((positions == points[ends]).all(1) for ends in (line, following[line]))
    inner = np.flatnonzero(~is_start & ~is_stop)
    inner = inner[np.lexsort((np.abs(positions - points[line])[inner, 1], line[inner]))]
    lines = line[inner]
    shift = np.searchsorted(lines, np.arange(ring.size))  # of each index, by the points that are put in before it
    vertex = np.where(is_stop, following[line], line)
    hits = vertex + shift[vertex]
    hits[inner] = lines + 1 + np.arange(inner.size)
    all_points = np.insert(points.astype(np.float64), lines + 1, positions[inner], axis=0)
    return _Slits(all_points, np.insert(ring, lines + 1, ring[lines]), tips + shift[tips], hits)


def _tips(points: Points, ring: Int64[np.ndarray, " p"]) -> Int64[np.ndarray, " s"]:
    """Return the leftmost point of each group of rings that touch, but for the outer ring's."""
    _, corner = np.unique(points, axis=0, return_inverse=True)
    count = int(ring[-1]) + 1
    pairs = np.ones(ring.size), (ring, count + corner.ravel())
    _, groups = connected_components(coo_array(pairs, (count + ring.size,) * 2), directed=False)
    group = groups[ring]
    in_order = np.lexsort((*points.T[::-1], group))  # by group, then from the left
    leftmost = in_order[np.flatnonzero(np.diff(group[in_order], prepend=-1))]
    return leftmost[group[leftmost] != group[0]]


def _first_hits(starts: Points, stops: Points, tips: Points) -> tuple[Int64[np.ndarray, " t"], Float[np.ndarray, " t"]]:
    """Return the first line at the left of each tip, on the tip's row of corners, and where it crosses the row."""
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
    span = float(starts[:, 0].max()) + 2
    nth = order[np.searchsorted((y * span + x)[order], tips[:, 1] * span + tips[:, 0]) - 1]
    return line[nth], x[nth]


def _rays(slits: _Slits) -> _Rays:
    """Return the two rays of each edge: one leaves its start, the other its end."""
    count, following = slits.ring.size, _following(slits.ring)
    chords = slits.points[following] - slits.points
    right = count + 2 * np.arange(slits.tips.size)
    to_right, to_left = np.zeros(right.size), np.full(right.size, np.pi)
    along, back = (np.arctan2(*towards.T[::-1]) for towards in (chords, -chords))
    return _Rays(
        np.concatenate([np.arange(count), slits.hits, slits.tips, following, slits.hits, slits.tips]),
        np.concatenate([np.arange(count), right, right + 1, np.arange(count), right + 1, right]),
        np.concatenate([along, to_right, to_left, back, to_right, to_left]),
        np.repeat([False, True], count + 2 * right.size),
    )


def _sectors(slits: _Slits, radius: float) -> tuple[list[int], Float[np.ndarray, "e 3 2"], Bool[np.ndarray, "e 3"]]:
    """Return for each edge the one that follows it in the new ring, and which of three corners are between them.

    Where several sectors have their tip the corner of each is cut at `radius`: it has a corner on each border, and one
    in between if it is not convex.
    """
    rays = _rays(slits)
    _, corner = np.unique(slits.points, axis=0, return_inverse=True)
    corner = corner.ravel()[rays.point]
    order = np.lexsort((rays.arrives, -rays.angle, corner))
    sizes = np.bincount(corner)[corner]
    after = order[_following(corner[order])]
    one, two = order[rays.arrives[order]], after[rays.arrives[order]]
    span = (rays.angle[one] - rays.angle[two]) % (2 * np.pi)
    angles = np.stack([rays.angle[one], rays.angle[one] - span / 2, rays.angle[two]], 1)
    is_shared = sizes[one] > 2
    distance = np.where(is_shared, radius, 0)[:, None, None]
    corners = slits.points[rays.point[one], None] + distance * np.stack([np.cos(angles), np.sin(angles)], -1)
    on_borders = (is_shared & (rays.edge[ends] < slits.ring.size) for ends in (one, two))
    is_kept = np.insert(np.stack([*on_borders], 1), 1, ~is_shared | (span > np.pi - _ROUNDING), axis=1)
    by_edge = np.argsort(rays.edge[one])
    return rays.edge[two][by_edge].tolist(), corners[by_edge], is_kept[by_edge]
