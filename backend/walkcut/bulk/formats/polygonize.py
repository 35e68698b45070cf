"""Regions as polygons, simplified to a tolerance."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int64, UInt16
from skimage.measure import label

from walkcut.bulk.formats.contours import Ring, signed_area, trace

DEFAULT_TOLERANCE = 1.0  # pixels

Points = Int64[np.ndarray, "_ 2"]


@dataclass(frozen=True)
class Polygon:
    """One connected part of a region: the rings of corners (x, y) around the part and around its holes."""

    region: int
    outer: Points
    holes: tuple[Points, ...]


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
    outer: dict[int, Points] = {}
    holes = defaultdict[int, list[Points]](list)
    for ring, points in zip(rings, simplify(rings, tolerance), strict=True):
        if signed_area(ring.points) > 0:
            outer[ring.region] = points
        else:
            holes[ring.region].append(points)
    order = sorted(outer, key=lambda part: (region_of_part[part], part))
    return [Polygon(int(region_of_part[part]), outer[part], tuple(holes[part])) for part in order]


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
