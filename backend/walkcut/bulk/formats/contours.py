"""Borders of regions, traced along the edges of pixels.

Corners of pixels are numbered row by row, from (0, 0) at the image's upper left to (width, height) at its lower right.
An edge is directed, with its region on the right-hand side, and has the id 4·(its first corner) + (its direction):
0 to the right, 1 down, 2 to the left, 3 up.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64, Integer, Shaped


@dataclass(frozen=True)
class Ring:
    """One closed border of a region: `points` (x, y) around it, the first one not repeated.

    On the screen an outer border runs clockwise, that of a hole anticlockwise. `fixed` points are shared by three or
    more borders. The border has the same first point in the rings of both of its sides.
    """

    region: int
    points: Int64[np.ndarray, "n 2"]
    fixed: Bool[np.ndarray, " n"]


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


def _successors(
    is_edge: Bool[np.ndarray, " ids"], edges: Int64[np.ndarray, " e"], width: int
) -> Int64[np.ndarray, " e"]:
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
