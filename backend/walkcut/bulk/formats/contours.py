"""Borders of regions, traced along the edges of pixels.

Corners of pixels are numbered row by row; the image's upper left corner is (0, 0), its lower right one
(width, height). An edge is directed, with its region on the right-hand side, and named by the corner that it starts
from and its direction: no two regions share one.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64, Integer, Shaped

_RIGHT, _DOWN, _LEFT, _UP = range(4)


@dataclass(frozen=True)
class Ring:
    """One closed border of a region: `points` (x, y) around it, the first one not repeated.

    Seen on the screen an outer border runs clockwise, that of a hole anticlockwise. `fixed` points are shared by
    three borders or more. A border has the same first point from both of its sides.
    """

    region: int
    points: Int64[np.ndarray, "n 2"]
    fixed: Bool[np.ndarray, " n"]


@dataclass(frozen=True)
class _Edges:
    """All directed edges of a map: their first corner, their direction, the region to their right, what follows."""

    corner: Int64[np.ndarray, " e"]
    direction: Int64[np.ndarray, " e"]
    region: Integer[np.ndarray, " e"]
    following: Int64[np.ndarray, " e"]


def trace(regions: Integer[np.ndarray, "y x"]) -> list[Ring]:
    """The borders of all regions but 0; pixels that touch in a corner alone are apart.

    Points are those where a border turns, or three borders meet.
    """
    edges = _edges(regions)
    before = np.empty_like(edges.following)
    before[edges.following] = np.arange(before.size)
    fixed = _meetings(regions).ravel()[edges.corner]
    kept = fixed | (edges.direction != edges.direction[before])
    rings = []
    for cycle in _cycles(edges.following.tolist()):
        ring = np.array(cycle)
        ring = ring[kept[ring]]
        ring = np.roll(ring, -_first(edges.corner[ring], fixed[ring]))
        y, x = np.divmod(edges.corner[ring], regions.shape[1] + 1)
        rings.append(Ring(int(edges.region[ring[0]]), np.stack([x, y], 1), fixed[ring]))
    return rings


def signed_area(points: Shaped[np.ndarray, "n 2"]) -> float:
    """A ring's area in pixels, below 0 for a ring that runs anticlockwise on the screen (Gauss's formula)."""
    x, y = points.T
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum()) / 2


def _around(regions: Integer[np.ndarray, "y x"]) -> list[Integer[np.ndarray, "h w"]]:
    """The pixels around each corner, clockwise from the lower right one; 0 outside of the image."""
    padded = np.pad(regions, 1)
    return [padded[1:, 1:], padded[1:, :-1], padded[:-1, :-1], padded[:-1, 1:]]


def _edges(regions: Integer[np.ndarray, "y x"]) -> _Edges:
    """Each edge, and the one after it: as far to the right as there is one, which keeps to the same pixels."""
    around = _around(regions)
    # To the right of the edge that leads right is the pixel below; to its left, the one above; and so on around.
    own = np.stack(around, -1)
    there = (own != np.stack(around[-1:] + around[:-1], -1)) & (own != 0)
    names = np.flatnonzero(there)
    corner, direction = names >> 2, names & 3
    width = regions.shape[1] + 1
    end = corner + np.array([1, width, -1, -width])[direction]
    turns = [end * 4 + ((direction + turn) & 3) for turn in (1, 0, -1)]
    exists = there.ravel()
    following = np.where(exists[turns[0]], turns[0], np.where(exists[turns[1]], turns[1], turns[2]))
    return _Edges(corner, direction, own.ravel()[names], np.searchsorted(names, following))


def _meetings(regions: Integer[np.ndarray, "y x"]) -> Bool[np.ndarray, "h w"]:
    """Whether three or four borders meet in a corner."""
    around = _around(regions)
    borders = [one != other for one, other in zip(around, around[1:] + around[:1], strict=True)]
    return np.asarray(np.sum(borders, axis=0) > 2)


def _cycles(following: list[int]) -> Iterator[list[int]]:
    """The cycles of a permutation."""
    seen = bytearray(len(following))
    for start in range(len(following)):
        cycle, at = [], start
        while not seen[at]:
            seen[at] = 1
            cycle.append(at)
            at = following[at]
        if cycle:
            yield cycle


def _first(corners: Int64[np.ndarray, " n"], fixed: Bool[np.ndarray, " n"]) -> int:
    """Which point a ring begins with: the same one from both sides of the border, and a fixed one if it has any."""
    return int(np.lexsort((corners, ~fixed))[0])
