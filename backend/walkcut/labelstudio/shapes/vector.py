"""Vectors: paths of lines and Bézier curves, closed around a region or open."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np

from walkcut.errors import RequestError
from walkcut.labelstudio.shapes.numbers import MAX_PERCENT, number
from walkcut.labelstudio.shapes.polygon import fill_percent, percent_rings
from walkcut.masks.raster import Mask, Size

_CURVE: Final = np.linspace(0, 1, 17)[1:, None]  # steps of a curve that are drawn as lines
_Point = tuple[float, float]


def encode(masks: Iterable[Mask], tolerance: float) -> Iterator[dict[str, Any]]:
    """Yield the value of each mask, all of one image; see `percent_rings`."""
    for ring in percent_rings(masks, tolerance):
        names = [f"v{index}" for index in range(len(ring))]
        vertices = [
            {"id": name, "x": x, "y": y, "prevPointId": previous, "isBezier": False}
            for (x, y), name, previous in zip(ring.tolist(), names, [names[-1], *names[:-1]], strict=True)
        ]
        yield {"vertices": vertices, "closed": True}


def decode(value: Mapping[str, Any], size: Size) -> Mask:
    """Return the mask of a closed path. Raises `RequestError` for others, which cover nothing."""
    vertices = value.get("vertices")
    if not isinstance(vertices, list) or not all(isinstance(vertex, dict) for vertex in vertices):
        raise RequestError("a vector needs vertices, each with an x and a y")
    if value.get("closed") is not True or len(vertices) < 3:
        raise RequestError("a vector that is not closed around at least three vertices covers nothing")
    path = [point for start, end in _sides(vertices) for point in _side(start, end)]
    return fill_percent(path, size)


def _sides(vertices: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Yield the vertices at both ends of each side, in order."""
    yield from zip(vertices, [*vertices[1:], vertices[0]], strict=True)


def _side(start: Mapping[str, Any], end: Mapping[str, Any]) -> list[_Point]:
    """Return the points of a side but its first: its end, or those along the curve that control points make of it."""
    corners = [_point(start), *_controls(start, "controlPoint2"), *_controls(end, "controlPoint1"), _point(end)]
    points = np.array(corners)[:, None]
    if len(corners) == 2:
        return [corners[1]]
    while len(points) > 1:  # de Casteljau
        points = points[:-1] * (1 - _CURVE) + points[1:] * _CURVE
    return [(x, y) for x, y in points[0].tolist()]


def _controls(vertex: Mapping[str, Any], name: str) -> list[_Point]:
    """Return a vertex's control point in a list, which is empty for a corner."""
    control = vertex.get(name)
    return [_point(control)] if vertex.get("isBezier") is True and isinstance(control, dict) else []


def _point(document: Mapping[str, Any]) -> _Point:
    return number(document.get("x"), MAX_PERCENT), number(document.get("y"), MAX_PERCENT)
