"""Regions as polygons: borders traced along the edges of pixels, then simplified to a tolerance.

Corners of pixels are numbered row by row, from (0, 0) at the image's upper left to (width, height) at its lower right.
An edge is directed, with its region on the right-hand side, and has the id 4·(its first corner) + (its direction):
0 to the right, 1 down, 2 to the left, 3 up.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int64, Integer, Shaped, UInt16
from skimage.measure import label

DEFAULT_TOLERANCE = 1.0  # pixels

Points = Int64[np.ndarray, "_ 2"]


@dataclass(frozen=True)
class Ring:
    """One closed border of a region: `points` (x, y) around it, the first one not repeated.

    On the screen an outer border runs clockwise, that of a hole anticlockwise. `fixed` points are shared by three or
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
        y, x = np.divmod(corners[ring], width)
        rings.append(Ring(int(right.ravel()[edges[ring[0]]]), np.stack([x, y], 1), fixed[ring]))
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


def simplify(rings: Sequence[Ring], tolerance: float) -> list[Points]:
    """Return the rings with fewer points, all `fixed` ones among them: no removed point is farther than `tolerance`.

    Douglas & Peucker, Cartographica 10(2), 1973, from one fixed point to the next.
    """
    if not rings:
        return []
    points = np.concatenate([np.concatenate([ring.points, ring.points[:1]]) for ring in rings])
    kept = np.concatenate([np.append(ring.fixed, True) for ring in rings])
    ends = np.cumsum([len(ring.points) + 1 for ring in rings])
    kept[[0, *ends[:-1]]] = True
    kept = _split(points, kept, tolerance)
    simplified = [ring.points[mask[:-1]] for ring, mask in zip(rings, np.split(kept, ends[:-1]), strict=True)]
    return [fewer if signed_area(fewer) else ring.points for ring, fewer in zip(rings, simplified, strict=True)]


def _split(points: Points, kept: Bool[np.ndarray, " n"], tolerance: float) -> Bool[np.ndarray, " n"]:
    """Return which points to keep: between two of them none is farther than `tolerance` from their connecting line.

    All lines of a round are split at once, each at its farthest point; of several the first in reading order, so that a
    line is split the same from both ends.
    """
    kept = kept.copy()
    reading_order = points @ np.array([1, points[:, 0].max() + 1])
    inner = np.flatnonzero(~kept)
    while inner.size:
        bounds = np.flatnonzero(kept)
        line = np.searchsorted(bounds, inner)
        distances = _squared_distances(points[inner], points[bounds[line - 1]], points[bounds[line]])
        starts = np.flatnonzero(np.diff(line, prepend=-1))
        line = np.cumsum(np.diff(line, prepend=line[0]) != 0)
        farthest = np.maximum.reduceat(distances, starts)[line]
        split = farthest > tolerance**2
        candidates = np.where(distances == farthest, reading_order[inner], np.iinfo(np.int64).max)
        chosen = split & (candidates == np.minimum.reduceat(candidates, starts)[line])
        kept[inner[chosen]] = True
        inner = inner[split & ~chosen]
    return kept


def _squared_distances(points: Points, starts: Points, ends: Points) -> Float[np.ndarray, " n"]:
    """Return the squared distance of each point to its line segment; bit-identical if start and end are swapped."""
    chord, from_start, from_end = ends - starts, points - starts, points - ends
    length = (chord**2).sum(1)
    along = (chord * from_start).sum(1)
    across = np.abs(chord[:, 0] * from_start[:, 1] - chord[:, 1] * from_start[:, 0]).astype(np.float64)
    nearest_end = np.minimum((from_start**2).sum(1), (from_end**2).sum(1))
    return np.where((along > 0) & (along < length), across**2 / np.maximum(length, 1), nearest_end)
