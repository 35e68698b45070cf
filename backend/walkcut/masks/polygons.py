"""Regions as polygons: borders traced along the edges of pixels, then simplified to a tolerance.

Corners of pixels are numbered row by row, from (0, 0) at the image's upper left to (width, height) at its lower right.
An edge is directed, with its region on the right-hand side, and has the id 4·(its first corner) + (its direction):
0 to the right, 1 down, 2 to the left, 3 up.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from jaxtyping import Bool, Float, Int64, Integer, Shaped, UInt16
from numpy.typing import NDArray
from skimage.measure import label

DEFAULT_TOLERANCE = 1.0  # pixels

Points = Int64[np.ndarray, "_ 2"]


@dataclass(frozen=True)
class Ring:
    """One closed border of a region: `points` (x, y) around it, the first one not repeated.

    On the screen an outer border runs clockwise, that of a hole anticlockwise. No corner is passed twice: rings touch
    where pixels touch at a corner only. `fixed` points are shared by three or
    more borders. The border has the same first point in the rings of both of its sides.
    """

    region: int
    points: Int64[np.ndarray, "n 2"]
    fixed: Bool[np.ndarray, " n"]


@dataclass(frozen=True)
class Polygon:
    """One connected part of a region: the rings of corners (x, y), first around the part, then around its holes."""

    region: int
    rings: Sequence[Points]


def polygons(labels: UInt16[np.ndarray, "y x"], tolerance: float) -> list[Polygon]:
    """Return the connected parts of all regions but 0, in the order of their numbers.

    Under the even-odd rule a pixel with its centre on the wrong side is at most `tolerance` pixels from the region's
    true border; with tolerance 0 there is none. A border between two regions is simplified once, for both. A ring that
    would vanish keeps all of its points, so that no region and no hole is lost.
    """
    parts = label(labels, connectivity=1, background=0)
    region_of_part = np.zeros(int(parts.max()) + 1, np.int64)
    region_of_part[parts] = labels
    rings = trace(parts)
    rings_of_part = defaultdict[int, list[Points]](list)
    for ring, points in zip(rings, simplify(rings, tolerance), strict=True):
        others = rings_of_part[ring.region]
        others.insert(0 if signed_area(ring.points) > 0 else len(others), points)
    order = sorted(rings_of_part, key=lambda part: (region_of_part[part], part))
    return [Polygon(int(region_of_part[part]), rings_of_part[part]) for part in order]


def trace(regions: Integer[np.ndarray, "y x"]) -> list[Ring]:
    """Return the borders of all regions but 0; pixels that touch only at a corner are separate.

    Points are the corners where a border turns, or three borders meet.
    """
    padded, width = np.pad(regions, 1), regions.shape[1] + 1
    # The pixels around each corner, clockwise from the lower right one, which is on the right-hand side of the edge to
    # the right, the pixel before it on the left-hand side, and so on.
    right = np.stack([padded[1:, 1:], padded[1:, :-1], padded[:-1, :-1], padded[:-1, 1:]], -1)
    is_border = right != np.roll(right, 1, -1)
    is_edge = (is_border & (right != 0)).ravel()
    edges = np.flatnonzero(is_edge)
    corners, directions = edges >> 2, edges & 3
    successors = _successors(is_edge, edges, width)
    fixed = (is_border.sum(-1) > 2).ravel()[corners]
    kept = fixed.copy()
    kept[successors] |= directions[successors] != directions
    rings = []
    for cycle in _cycles(successors.tolist()):
        ring = np.array(cycle)
        ring = ring[kept[ring]]
        # The first point is the same from both sides of the border, and fixed if any point is.
        ring = np.roll(ring, -int(np.lexsort((corners[ring], ~fixed[ring]))[0]))
        for loop in _loops(corners[ring].tolist()):
            part = ring[loop]
            y, x = np.divmod(corners[part], width)
            rings.append(Ring(int(right.ravel()[edges[part[0]]]), np.stack([x, y], 1), fixed[part]))
    return rings


def signed_area(points: Shaped[np.ndarray, "n 2"]) -> float:
    """Return a ring's area in pixels, negative if it runs anticlockwise on the screen (Gauss's formula).

    >>> signed_area(np.array([[0, 0], [2, 0], [2, 1], [0, 1]]))
    2.0
    """
    x, y = points.T
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum()) / 2


def _successors(is_edge: Bool[np.ndarray, " i"], edges: Int64[np.ndarray, " e"], width: int) -> Int64[np.ndarray, " e"]:
    """Return the index of the edge after each: the rightmost one at its end, which stays at the same pixels."""
    directions = edges & 3
    ends = (edges >> 2) + np.array([1, width, -1, -width])[directions]
    right, ahead, left = (ends * 4 + ((directions + turn) & 3) for turn in (1, 0, -1))
    return np.searchsorted(edges, np.where(is_edge[right], right, np.where(is_edge[ahead], ahead, left)))


def _cycles(successor: list[int]) -> Iterator[list[int]]:
    """Yield the cycles of a permutation."""
    seen = bytearray(len(successor))
    for start in range(len(successor)):
        cycle, edge = [], start
        while not seen[edge]:
            seen[edge] = 1
            cycle.append(edge)
            edge = successor[edge]
        if cycle:
            yield cycle


def _loops(corners: list[int]) -> Iterator[list[int]]:
    """Yield the loops of a ring, as indices: where it comes to a corner again, it closes one."""
    stack, last = list[int](), dict[int, int]()
    for index, corner in enumerate(corners):
        if corner in last:
            start = stack.index(last[corner])
            yield stack[start:]
            for closed in stack[start:]:
                last.pop(corners[closed], None)
            del stack[start:]
        last[corner] = index
        stack.append(index)
    yield stack


def simplify(rings: Sequence[Ring], tolerance: float) -> list[Points]:
    """Return the rings with fewer points, all `fixed` ones among them: no removed point is farther than `tolerance`.

    Douglas & Peucker, Cartographica 10(2), 1973, from one fixed point to the next. Lines that would cross or touch
    others but at their ends are split further, so that rings that did not cross do not.
    """
    if not rings:
        return []
    points = np.concatenate([np.concatenate([ring.points, ring.points[:1]]) for ring in rings])
    kept = np.concatenate([np.append(ring.fixed, True) for ring in rings])
    ends = np.cumsum([len(ring.points) + 1 for ring in rings])
    last = np.zeros(len(points), np.bool_)
    last[ends - 1] = True
    kept[[0, *ends[:-1]]] = True
    kept = _split(points, kept, tolerance)
    vanished = [
        np.full(len(part), not signed_area(ring.points[part[:-1]]))
        for ring, part in zip(rings, np.split(kept, ends[:-1]), strict=True)
    ]
    kept = _in_all_rings(points, kept | np.concatenate(vanished))
    while (lines := _crossing(points, np.flatnonzero(kept), last)).size:
        refined = _refined(points, kept, np.flatnonzero(~kept & np.isin(_line_starts(kept), lines)), 0.0)
        if np.array_equal(refined, kept):
            break
        kept = _in_all_rings(points, refined)
    return [ring.points[part[:-1]] for ring, part in zip(rings, np.split(kept, ends[:-1]), strict=True)]


def _crossing(points: Points, bounds: Int64[np.ndarray, " b"], last: Bool[np.ndarray, " n"]) -> Int64[np.ndarray, " l"]:
    """Return the first points of the lines, from one bound to the next, that cross or touch others but at common ends.

    No line begins at the `last` point of a ring. A line and its reverse, of the ring at its other side, are no pair.
    """
    is_line = ~last[bounds[:-1]]
    starts, stops = points[bounds[:-1]][is_line], points[bounds[1:]][is_line]
    lines: NDArray[Any] = np.asarray(shapely.linestrings(np.stack([starts, stops], 1)))
    one, other = shapely.STRtree(lines).query(lines, predicate="intersects")
    one, other = one[one < other], other[one < other]
    meeting, overlapping = np.zeros((2, len(one)), np.int64)
    for pivot, end in ((starts, stops), (stops, starts)):
        for other_pivot, other_end in ((starts, stops), (stops, starts)):
            away, beside = end[one] - pivot[one], other_end[other] - other_pivot[other]
            is_common = (pivot[one] == other_pivot[other]).all(1)
            is_parallel = away[:, 0] * beside[:, 1] == away[:, 1] * beside[:, 0]
            meeting += is_common
            overlapping += is_common & is_parallel & ((away * beside).sum(1) > 0)
    bad = (meeting == 0) | ((meeting == 1) & (overlapping > 0))
    return np.unique(bounds[:-1][is_line][np.concatenate([one[bad], other[bad]])])


def _in_all_rings(points: Points, kept: Bool[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """Return which points to keep: those that any ring keeps, so that both sides of a border stay equal."""
    corners = points @ np.array([1, points[:, 0].max() + 1])
    return np.isin(corners, corners[kept])


def _line_starts(kept: Bool[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """Return the last kept point at or before each."""
    return np.maximum.accumulate(np.where(kept, np.arange(len(kept)), 0))


def _split(points: Points, kept: Bool[np.ndarray, " n"], tolerance: float) -> Bool[np.ndarray, " n"]:
    """Return which points to keep: between two of them none is farther than `tolerance` from their connecting line.

    All lines of a round are split at once, each at its farthest point; of several the first in reading order, so that a
    line is split the same from both ends.
    """
    while True:
        refined = _refined(points, kept, np.flatnonzero(~kept), tolerance)
        if np.array_equal(refined, kept):
            return kept
        kept = refined


def _refined(
    points: Points, kept: Bool[np.ndarray, " n"], inner: Int64[np.ndarray, " i"], tolerance: float
) -> Bool[np.ndarray, " n"]:
    """Return which points to keep: of the inner points of each line also the farthest, if beyond `tolerance`."""
    if not inner.size:
        return kept
    bounds = np.flatnonzero(kept)
    line = np.searchsorted(bounds, inner)
    distances = _squared_distances(points[inner], points[bounds[line - 1]], points[bounds[line]])
    starts = np.flatnonzero(np.diff(line, prepend=-1))
    line = np.cumsum(np.diff(line, prepend=line[0]) != 0)
    farthest = np.maximum.reduceat(distances, starts)[line]
    reading_order = points[inner] @ np.array([1, points[:, 0].max() + 1])
    candidates = np.where(distances == farthest, reading_order, np.iinfo(np.int64).max)
    chosen = (farthest > tolerance**2) & (candidates == np.minimum.reduceat(candidates, starts)[line])
    refined = kept.copy()
    refined[inner[chosen]] = True
    return refined


def _squared_distances(points: Points, starts: Points, ends: Points) -> Float[np.ndarray, " n"]:
    """Return the squared distance of each point to its line segment; bit-identical if start and end are swapped."""
    chord, from_start, from_end = ends - starts, points - starts, points - ends
    length = (chord**2).sum(1)
    along = (chord * from_start).sum(1)
    across = np.abs(chord[:, 0] * from_start[:, 1] - chord[:, 1] * from_start[:, 0]).astype(np.float64)
    nearest_end = np.minimum((from_start**2).sum(1), (from_end**2).sum(1))
    return np.where((along > 0) & (along < length), across**2 / np.maximum(length, 1), nearest_end)
