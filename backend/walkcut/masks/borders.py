"""Borders between the parts of an image, traced along the edges of pixels.

Corners of pixels are numbered row by row, from (0, 0) at the image's upper left to (width, height) at its lower right.
An edge is directed, with its part on the right-hand side, and has the id 4·(its first corner) + (its direction):
0 to the right, 1 down, 2 to the left, 3 up.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64, Integer

Points = Int64[np.ndarray, "_ 2"]


@dataclass(frozen=True)
class Ring:
    """One closed border of a part, which passes through no corner twice: borders one after the other.

    On the screen the outer ring of a part runs clockwise, that of a hole anticlockwise. `borders` are indices;
    `is_forward` says which of them run in the direction in which their points are listed.
    """

    part: int
    borders: Int64[np.ndarray, " b"]
    is_forward: Bool[np.ndarray, " b"]

    def points(self, lines: list[Points]) -> Points:
        """Return the corners (x, y) around the ring, the first one not repeated, given the corners of each border."""
        runs = zip(self.borders.tolist(), self.is_forward.tolist(), strict=True)
        return np.concatenate([(lines[border] if forward else lines[border][::-1])[:-1] for border, forward in runs])


@dataclass(frozen=True)
class _Edges:
    """All edges in the order of their ids, each with the index of the edge that follows it in its ring."""

    ids: Int64[np.ndarray, " e"]
    parts: Int64[np.ndarray, " e"]
    is_fixed: Bool[np.ndarray, " e"]
    successors: Int64[np.ndarray, " e"]


def trace(parts: Integer[np.ndarray, "y x"]) -> tuple[list[Ring], list[Points]]:
    """Return the rings of all parts but 0, and each border between two corners where three or four borders meet.

    A part is connected along edges of pixels. A border that meets no other begins and ends at its first corner in
    reading order. Its points are the corners (x, y) where it begins, turns, and ends. Both of its sides share it.
    """
    width = parts.shape[1] + 1
    edges = _find_edges(parts, width)
    if not edges.ids.size:
        return [], []
    cycles = [_from_first_corner(np.array(cycle), edges) for cycle in _cycles(edges.successors.tolist())]
    order = np.concatenate(cycles)
    ring_starts = np.cumsum([0, *map(len, cycles[:-1])])
    is_start = edges.is_fixed[order]
    is_start[ring_starts] = True
    starts = np.flatnonzero(is_start)
    stops = np.append(starts[1:], order.size)
    borders, kept, is_forward = _match_sides(edges.ids[order[starts]], edges.ids[order[stops - 1]], width)
    directions = edges.ids & 3
    is_turn = is_start | (directions[order] != np.roll(directions[order], 1))
    corners = np.stack(np.divmod(edges.ids[order] >> 2, width)[::-1], 1)
    lasts = np.stack(np.divmod(_ends(edges.ids[order[stops - 1]], width), width)[::-1], 1)
    lines = [
        np.concatenate([corners[start:stop][is_turn[start:stop]], last[None]])
        for start, stop, last in zip(starts[kept].tolist(), stops[kept].tolist(), lasts[kept], strict=True)
    ]
    bounds = np.searchsorted(starts, [*ring_starts, order.size])
    rings = [
        Ring(int(edges.parts[cycle[0]]), borders[start:stop], is_forward[start:stop])
        for cycle, start, stop in zip(cycles, bounds[:-1], bounds[1:], strict=True)
    ]
    return rings, lines


def _find_edges(parts: Integer[np.ndarray, "y x"], width: int) -> _Edges:
    """Return all edges of all parts but 0."""
    padded = np.pad(parts, 1)
    across, down = padded[:, 1:] != padded[:, :-1], padded[1:] != padded[:-1]
    y, x = np.nonzero(across[1:] | across[:-1] | down[:, 1:] | down[:, :-1])
    # The pixels around each corner, clockwise from the lower right one, which is on the right-hand side of the edge to
    # the right, the pixel before it on the left-hand side, and so on.
    right = np.stack([padded[y + 1, x + 1], padded[y + 1, x], padded[y, x], padded[y, x + 1]], -1).astype(np.int64)
    is_border = right != np.roll(right, 1, -1)
    is_edge = is_border & (right != 0)
    corners = y.astype(np.int64) * width + x
    corner, direction = np.nonzero(is_edge)
    ids = corners[corner] * 4 + direction
    end = np.searchsorted(corners, _ends(ids, width))
    successors = np.searchsorted(ids, corners[end] * 4 + _next_direction(right, is_edge, end, direction, corner))
    return _Edges(ids, right[corner, direction], is_border.sum(-1)[corner] > 2, successors)


def _next_direction(
    right: Int64[np.ndarray, "c 4"],
    is_edge: Bool[np.ndarray, "c 4"],
    end: Int64[np.ndarray, " e"],
    direction: Int64[np.ndarray, " e"],
    corner: Int64[np.ndarray, " e"],
) -> Int64[np.ndarray, " e"]:
    """Return the direction of the edge after each.

    It turns right, to stay at the same pixels; but left where pixels of one part touch only at the corner: they are
    connected elsewhere, and the ring would come back to the corner.
    """
    turned_right, ahead, turned_left = ((direction + turn) & 3 for turn in (1, 0, -1))
    can_turn_right, can_go_ahead = is_edge[end, turned_right], is_edge[end, ahead]
    touches = can_turn_right & is_edge[end, turned_left] & (right[end, turned_left] == right[corner, direction])
    return np.select([touches, can_turn_right, can_go_ahead], [turned_left, turned_right, ahead], turned_left)


def _ends(ids: Int64[np.ndarray, " e"], width: int) -> Int64[np.ndarray, " e"]:
    """Return the corner at the end of each edge."""
    return (ids >> 2) + np.array([1, width, -1, -width])[ids & 3]


def _cycles(successors: list[int]) -> Iterator[list[int]]:
    """Yield the cycles of a permutation."""
    seen = bytearray(len(successors))
    for start in range(len(successors)):
        cycle, edge = [], start
        while not seen[edge]:
            seen[edge] = 1
            cycle.append(edge)
            edge = successors[edge]
        if cycle:
            yield cycle


def _from_first_corner(cycle: Int64[np.ndarray, " n"], edges: _Edges) -> Int64[np.ndarray, " n"]:
    """Rotate a ring: it begins at its first corner in reading order, at a fixed one if it has any."""
    candidates = np.flatnonzero(edges.is_fixed[cycle])
    if not candidates.size:
        candidates = np.arange(cycle.size)
    return np.roll(cycle, -int(candidates[np.argmin(edges.ids[cycle[candidates]])]))


def _match_sides(
    first: Int64[np.ndarray, " b"], last: Int64[np.ndarray, " b"], width: int
) -> tuple[Int64[np.ndarray, " b"], Int64[np.ndarray, " u"], Bool[np.ndarray, " b"]]:
    """Number the borders, seen from one or both sides, by their first and last edges.

    Returns each side's border, for each border the index of the side that lists its points, and which sides run in
    that direction.
    """
    pairs = [np.minimum(edges, _ends(edges, width) * 4 + (edges & 3 ^ 2)) for edges in (first, last)]
    _, kept, borders = np.unique(np.minimum(*pairs), return_index=True, return_inverse=True)
    runs_up = (pairs[0] < pairs[1]) | ((pairs[0] == pairs[1]) & (pairs[0] == first))
    return borders, kept, runs_up == runs_up[kept][borders]
