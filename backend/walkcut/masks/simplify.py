"""Simplification of the borders of a partition, which keeps its topology."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from jaxtyping import Bool, Float, Float64, Int64

from walkcut.masks.borders import Points

_MAX_PAIRS = 1 << 20  # pairs of lines or points that are compared at once


@dataclass(frozen=True)
class _Lines:
    """The lines between kept points of the same border: indices of their first and last points."""

    starts: Int64[np.ndarray, " l"]
    stops: Int64[np.ndarray, " l"]


def simplify(borders: Sequence[Points], tolerances: Float64[np.ndarray, " b"]) -> list[Points]:
    """Return borders that meet at their ends alone with fewer points: no removed one is farther than the `tolerances`.

    Douglas & Peucker, Cartographica 10(2), 1973. Lines that would cross or touch others but at common ends, or that
    would have a kept point on the other side, are split further; the borders as given are valid, so that this ends.
    """
    if not (tolerances > 0).any():
        return list(borders)
    points, lengths = np.concatenate(borders), [len(border) for border in borders]
    ends, tolerance = np.cumsum(lengths), np.repeat(tolerances, lengths)
    is_last = np.zeros(len(points), np.bool_)
    is_last[ends - 1] = True
    kept = is_last | np.roll(is_last, 1)
    is_split = np.zeros(len(points), np.bool_)
    inner = np.flatnonzero(~kept)
    while True:
        kept = _split(points, kept, inner, is_split, tolerance)
        is_split = _invalid(points, kept, is_last, float(tolerances.max()))
        if not is_split.any():
            break
        inner = np.flatnonzero(~kept)
        bounds = np.flatnonzero(kept)
        inner = inner[is_split[bounds[np.searchsorted(bounds, inner) - 1]]]
    return [border[mask] for border, mask in zip(borders, np.split(kept, ends[:-1]), strict=True)]


def _split(
    points: Points,
    kept: Bool[np.ndarray, " n"],
    inner: Int64[np.ndarray, " i"],
    is_split: Bool[np.ndarray, " n"],
    tolerance: Float64[np.ndarray, " n"],
) -> Bool[np.ndarray, " n"]:
    """Return which points to keep: between two of them none of `inner` is farther than `tolerance` from their line.

    Lines that begin at a point in `is_split` are split in any case. All lines of a round are split at once, each at its
    farthest point; of several the first in reading order, so that a line is split the same from both ends.
    """
    kept = kept.copy()
    reading_order = points @ np.array([1, points[:, 0].max() + 1])
    while inner.size:
        bounds = np.flatnonzero(kept)
        line = np.searchsorted(bounds, inner)
        distances = _squared_distances(points[inner], points[bounds[line - 1]], points[bounds[line]])
        starts = np.flatnonzero(np.diff(line, prepend=-1))
        nth = np.cumsum(np.diff(line, prepend=line[0]) != 0)
        farthest = np.maximum.reduceat(distances, starts)[nth]
        split = (farthest > tolerance[inner] ** 2) | is_split[bounds[line - 1]]
        candidates = np.where(distances == farthest, reading_order[inner], np.iinfo(np.int64).max)
        chosen = split & (candidates == np.minimum.reduceat(candidates, starts)[nth])
        kept[inner[chosen]] = True
        inner = inner[split & ~chosen]
        is_split = np.zeros_like(is_split)
    return kept


def _squared_distances(points: Points, starts: Points, ends: Points) -> Float[np.ndarray, " n"]:
    """Return the squared distance of each point to its line segment; bit-identical if start and end are swapped."""
    chord, from_start, from_end = ends - starts, points - starts, points - ends
    length = (chord**2).sum(1)
    along = (chord * from_start).sum(1)
    across = np.abs(_cross(chord, from_start)).astype(np.float64)
    nearest_end = np.minimum((from_start**2).sum(1), (from_end**2).sum(1))
    return np.where((along > 0) & (along < length), across**2 / np.maximum(length, 1), nearest_end)


def _invalid(
    points: Points, kept: Bool[np.ndarray, " n"], is_last: Bool[np.ndarray, " n"], tolerance: float
) -> Bool[np.ndarray, " n"]:
    """Return the first points of the lines to split: with inner points, and in conflict with a line or a point."""
    bounds = np.flatnonzero(kept)
    is_line = ~is_last[bounds[:-1]]
    lines = _Lines(bounds[:-1][is_line], bounds[1:][is_line])
    tree = shapely.STRtree(shapely.linestrings(points[np.stack([lines.starts, lines.stops], 1)]))
    conflicts = _lines_in_conflict(points, lines, tree) | _lines_with_points_passed(points, lines, tree, tolerance)
    is_split = np.zeros(len(points), np.bool_)
    is_split[lines.starts[conflicts & (lines.stops > lines.starts + 1)]] = True
    return is_split


def _lines_in_conflict(points: Points, lines: _Lines, tree: shapely.STRtree) -> Bool[np.ndarray, " l"]:
    """Return the lines that are points, and those that cross or touch others but at common ends."""
    starts, stops = points[lines.starts], points[lines.stops]
    conflicts = (starts == stops).all(1)
    one, two = tree.query(tree.geometries)
    one, two = one[one < two], two[one < two]
    for begin in range(0, one.size, _MAX_PAIRS):
        first, second = one[begin : begin + _MAX_PAIRS], two[begin : begin + _MAX_PAIRS]
        crossed = _conflict(starts[first], stops[first], starts[second], stops[second])
        conflicts[first[crossed]] = conflicts[second[crossed]] = True
    return conflicts


def _conflict(a: Points, b: Points, c: Points, d: Points) -> Bool[np.ndarray, " p"]:
    """Return whether the lines a-b and c-d have a common point that is not an end of both; all in integers."""
    sides = [_side(a, b, c), _side(a, b, d), _side(c, d, a), _side(c, d, b)]
    meet = (sides[0] * sides[1] <= 0) & (sides[2] * sides[3] <= 0)
    boxes = (np.minimum(a, b) <= np.maximum(c, d)) & (np.minimum(c, d) <= np.maximum(a, b))
    meet &= boxes.all(1)
    common = np.stack([(p == q).all(1) for p, q in ((a, c), (a, d), (b, c), (b, d))])
    # With one common end two lines meet elsewhere only if they run along each other.
    away = np.where(common[0] | common[1], 1, -1)[:, None] * (b - a)
    other_away = np.where(common[0] | common[2], 1, -1)[:, None] * (d - c)
    along = (_cross(away, other_away) == 0) & ((away * other_away).sum(1) > 0)
    return meet & ((common.sum(0) != 1) | along)


def _side(a: Points, b: Points, point: Points) -> Int64[np.ndarray, " p"]:
    """Return 1, 0 or -1: on which side of the line a-b a point lies."""
    return np.sign(_cross(b - a, point - a))


def _cross(one: Points, two: Points) -> Int64[np.ndarray, " p"]:
    return one[:, 0] * two[:, 1] - one[:, 1] * two[:, 0]


def _lines_with_points_passed(
    points: Points, lines: _Lines, tree: shapely.STRtree, tolerance: float
) -> Bool[np.ndarray, " l"]:
    """Return the lines that have a kept point on the other side than the border that they stand for."""
    kept = np.unique(points[np.concatenate([lines.starts, lines.stops])], axis=0)
    nth, line = tree.query(shapely.points(kept), predicate="dwithin", distance=tolerance)
    point = kept[nth]
    is_end = (point == points[lines.starts[line]]).all(1) | (point == points[lines.stops[line]]).all(1)
    has_inner = lines.stops[line] > lines.starts[line] + 1
    point, line = point[has_inner & ~is_end], line[has_inner & ~is_end]
    passed = np.zeros(lines.starts.size, np.bool_)
    edges = lines.stops[line] - lines.starts[line] + 1  # of the border and the line together
    for chosen in np.split(np.arange(line.size), np.flatnonzero(np.diff(np.cumsum(edges) // _MAX_PAIRS)) + 1):
        passed[line[chosen][_is_between(points, point[chosen], lines, line[chosen], edges[chosen])]] = True
    return passed


def _is_between(
    points: Points,
    point: Points,
    lines: _Lines,
    line: Int64[np.ndarray, " p"],
    edges: Int64[np.ndarray, " p"],
) -> Bool[np.ndarray, " p"]:
    """Return whether each point is between its line and the border that the line stands for (even-odd rule)."""
    pair = np.repeat(np.arange(line.size), edges)
    nth = np.arange(pair.size) - np.repeat(np.cumsum(edges) - edges, edges)
    start = lines.starts[line][pair]
    a = points[start + nth]
    b = points[np.where(nth + 1 == edges[pair], start, start + nth + 1)]
    q = point[pair]
    crosses = (a[:, 1] <= q[:, 1]) != (b[:, 1] <= q[:, 1])
    upwards = np.where(b[:, 1] > a[:, 1], 1, -1)
    is_right = _cross(b - a, q - a) * upwards < 0
    crossings = np.bincount(pair[crosses & is_right], minlength=line.size)
    return crossings % 2 == 1
