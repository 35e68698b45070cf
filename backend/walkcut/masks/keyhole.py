"""Polygons with holes as one ring, for formats that know no holes."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64, Int64, Shaped

_SLIT = 0.02  # pixels
_OFFSET = 0.03  # pixels from a corner to the slit: more than corners are moved, less than to the centre of a pixel
_NUDGE = 0.01  # pixels

Ring = Float64[np.ndarray, "_ 2"]


def keyhole(rings: Sequence[Shaped[np.ndarray, "_ 2"]]) -> Ring:
    """Return one ring (x, y) of the same pixels as the rings of a polygon: around the part, then around its holes.

    Corners are whole numbers, and the holes run the other way round. A slit less than 0.02 pixels wide joins each hole
    to the border at its left. Where a hole touches another ring in a corner, it is moved by 0.01 pixels. No pixel's
    centre changes sides, but for those on the border itself.

    >>> outer, hole = np.array([[0, 0], [4, 0], [4, 4], [0, 4]]), np.array([[1, 1], [1, 2], [2, 2], [2, 1]])
    >>> keyhole([outer, hole]).round(2).tolist()[3:7]
    [[0.0, 4.0], [0.0, 1.04], [1.0, 1.04], [1.0, 2.0]]
    """
    outer, *holes = (np.asarray(ring, np.float64) for ring in rings)
    holes.sort(key=lambda ring: tuple(ring[_leftmost(ring)]))
    width = _SLIT / (2 * len(holes) + 1)
    holes = [_apart(hole, [outer, *holes[:index], *holes[index + 1 :]]) for index, hole in enumerate(holes)]
    for index, hole in enumerate(holes):
        outer = _joined(outer, hole, _OFFSET + (2 * index + 1) * width, width)
    return outer


def _leftmost(ring: Ring) -> int:
    """Return the index of the leftmost corner, of equal ones the upper."""
    return int(np.lexsort(ring.T[::-1])[0])


def _joined(outer: Ring, hole: Ring, offset: float, width: float) -> Ring:
    """Return a ring joined to a hole by a slit between two rows, `offset` from the hole's leftmost corner.

    The offset of each hole is another, so that no slits meet.
    """
    y = round(hole[_leftmost(hole), 1])  # without the nudge
    side = 1 if _crossings(hole, y + offset)[0].size else -1
    upper, lower = sorted((y + side * offset, y + side * (offset + width)))
    right, right_x = _edge_at(hole, upper, lower, np.inf)
    left, left_x = _edge_at(outer, upper, lower, right_x[0])
    # With the region on the right-hand side, a border at its left runs up, and one at its right down.
    enter = np.array([[left_x[1], lower], [right_x[1], lower]])
    leave = np.array([[right_x[0], upper], [left_x[0], upper]])
    around = np.roll(hole, -right - 1, axis=0)
    return np.concatenate([outer[: left + 1], enter, around, leave, outer[left + 1 :]])


def _edge_at(ring: Ring, upper: float, lower: float, limit: float) -> tuple[int, tuple[float, float]]:
    """Return a ring's edge between two rows without a corner in between, and its x in each.

    Of all edges it is the leftmost or, with a finite limit, the rightmost at the left of it.
    """
    edges, xs = _crossings(ring, upper)
    chosen = int(xs.argmin() if np.isinf(limit) else np.where(xs < limit, xs, -np.inf).argmax())
    _, others = _crossings(ring, lower)
    return int(edges[chosen]), (float(xs[chosen]), float(others[chosen]))


def _crossings(ring: Ring, row: float) -> tuple[Int64[np.ndarray, " e"], Float64[np.ndarray, " e"]]:
    """Return the edges that cross a row, and where."""
    (x, y), (next_x, next_y) = ring.T, np.roll(ring, -1, axis=0).T
    edges = np.flatnonzero((y < row) != (next_y < row))
    slopes = (next_x[edges] - x[edges]) / (next_y[edges] - y[edges])
    return edges, x[edges] + (row - y[edges]) * slopes


def _apart(hole: Ring, touching: Sequence[Ring]) -> Ring:
    """Return a hole whose corners that others have too are moved into the hole."""
    shared = (hole[:, None] == np.concatenate(touching)).all(-1).any(-1)
    before, after = hole - np.roll(hole, 1, axis=0), np.roll(hole, -1, axis=0) - hole
    before, after = (edges / np.linalg.norm(edges, axis=1, keepdims=True) for edges in (before, after))
    left = np.stack([before[:, 1] + after[:, 1], -before[:, 0] - after[:, 0]], 1)  # the normals of both edges
    inward = left / np.linalg.norm(left, axis=1, keepdims=True)
    return hole + _NUDGE * np.where(shared[:, None], inward, 0.0)
