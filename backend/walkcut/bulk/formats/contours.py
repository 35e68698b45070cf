"""Borders of regions, traced along the edges of pixels.

Corners of pixels are numbered row by row, from (0, 0) at the image's upper left to (width, height) at its lower right.
An edge is directed, with its region on the right-hand side, and has the id 4·(its first corner) + (its direction).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64, Integer, Shaped

_RIGHT, _DOWN, _LEFT, _UP = range(4)


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
class _Edges:
    """All directed edges of a map: first corner, direction, region to the right, index of the next edge."""

    corner: Int64[np.ndarray, " e"]
    direction: Int64[np.ndarray, " e"]
    region: Integer[np.ndarray, " e"]
    successor: Int64[np.ndarray, " e"]


def trace(regions: Integer[np.ndarray, "y x"]) -> list[Ring]:
    """Return the borders of all regions but 0; pixels that touch only at a corner are separate.

    Points are the corners where a border turns, or three borders meet.
    """
    edges = _edges(regions)
    predecessor = np.empty_like(edges.successor)
    predecessor[edges.successor] = np.arange(predecessor.size)
    fixed = _junctions(regions).ravel()[edges.corner]
    kept = fixed | (edges.direction != edges.direction[predecessor])
    rings = []
    for cycle in _cycles(edges.successor.tolist()):
        ring = np.array(cycle)
        ring = ring[kept[ring]]
        ring = np.roll(ring, -_start_index(edges.corner[ring], fixed[ring]))
        y, x = np.divmod(edges.corner[ring], regions.shape[1] + 1)
        rings.append(Ring(int(edges.region[ring[0]]), np.stack([x, y], 1), fixed[ring]))
    return rings


def signed_area(points: Shaped[np.ndarray, "n 2"]) -> float:
    """Return a ring's area in pixels, negative if it runs anticlockwise on the screen (Gauss's formula).

    >>> signed_area(np.array([[0, 0], [2, 0], [2, 1], [0, 1]]))
    2.0
    """
    x, y = points.T
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum()) / 2


def _corner_pixels(regions: Integer[np.ndarray, "y x"]) -> list[Integer[np.ndarray, "h w"]]:
    """Return the pixels around each corner, clockwise from the lower right one; 0 outside of the image."""
    padded = np.pad(regions, 1)
    return [padded[1:, 1:], padded[1:, :-1], padded[:-1, :-1], padded[:-1, 1:]]


def _edges(regions: Integer[np.ndarray, "y x"]) -> _Edges:
    """Return all edges; an edge is followed by the rightmost one at its end, which stays at the same pixels."""
    around = _corner_pixels(regions)
    # The edge to the right has the pixel below on its right-hand side and the one above on its left, and so on.
    right = np.stack(around, -1)
    is_edge = (right != np.stack(around[-1:] + around[:-1], -1)) & (right != 0)
    ids = np.flatnonzero(is_edge)
    corner, direction = ids >> 2, ids & 3
    width = regions.shape[1] + 1
    end = corner + np.array([1, width, -1, -width])[direction]
    turns = [end * 4 + ((direction + turn) & 3) for turn in (1, 0, -1)]
    exists = is_edge.ravel()
    successor = np.where(exists[turns[0]], turns[0], np.where(exists[turns[1]], turns[1], turns[2]))
    return _Edges(corner, direction, right.ravel()[ids], np.searchsorted(ids, successor))


def _junctions(regions: Integer[np.ndarray, "y x"]) -> Bool[np.ndarray, "h w"]:
    """Return whether three or four borders meet at each corner."""
    around = _corner_pixels(regions)
    borders = [pixel != clockwise for pixel, clockwise in zip(around, around[1:] + around[:1], strict=True)]
    return np.asarray(np.sum(borders, axis=0) > 2)


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


def _start_index(corners: Int64[np.ndarray, " n"], fixed: Bool[np.ndarray, " n"]) -> int:
    """Return the index of a ring's first point: the same from both sides of the border, fixed if any point is."""
    return int(np.lexsort((corners, ~fixed))[0])
