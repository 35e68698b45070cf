"""Vector regions: closed paths of vertices, with straight and cubic Bézier segments."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from jaxtyping import Float

from walkcut.errors import RequestError
from walkcut.labelstudio.shapes.percent import Mask, Size, number
from walkcut.labelstudio.shapes.polygon import outlines
from walkcut.masks.raster import fill_polygon

_STEPS: Final = 64  # lines that a curve is drawn with
_MISSING_HANDLE: Final = 0.3  # where the editor puts the handle of a straight end: this part of the way to the other


def encode(masks: Sequence[Mask], tolerance: float) -> list[dict[str, Any]]:
    """Return the value of each mask, all of one image together: the points are those of a polygon.

    As where an annotator closes a path, the first vertex follows the last.
    """
    return [{"vertices": _vertices(outline.tolist()), "closed": True} for outline in outlines(masks, tolerance)]


def _vertices(points: Sequence[Sequence[float]]) -> list[dict[str, Any]]:
    return [
        {"id": f"v{index}", "x": x, "y": y, "prevPointId": f"v{(index or len(points)) - 1}", "isBezier": False}
        for index, (x, y) in enumerate(points)
    ]


def decode(value: Mapping[str, Any], size: Size) -> Mask:
    """Return the mask of a closed path of at least three vertices; two are enough with curves.

    A path whose first vertex follows the last is closed, too: the editor writes `closed` as false into all regions of a
    control without `closable`. Open paths and those that branch have no area: they raise `RequestError`.
    """
    vertices = value.get("vertices")
    if not isinstance(vertices, list) or len(vertices) < 2 or not all(isinstance(vertex, dict) for vertex in vertices):
        raise RequestError("a vector path needs vertices, each an x and a y")
    path = _in_order(vertices)
    if not value.get("closed") and path[0].get("prevPointId") is None:
        raise RequestError("an open vector path covers no area: close it on the image")
    segments = [_segment(start, end) for start, end in zip(path, [*path[1:], path[0]], strict=True)]
    return fill_polygon([np.concatenate(segments) * np.array(size[::-1]) / 100], size)


def _in_order(vertices: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the vertices in the order in which they follow each other: the order of the list may be another."""
    successors = {str(vertex["prevPointId"]): vertex for vertex in vertices if vertex.get("prevPointId") is not None}
    if not successors:
        return vertices
    start = next((vertex for vertex in vertices if vertex.get("prevPointId") is None), vertices[0])
    path = [start]
    while len(path) < len(vertices):
        following = successors.get(str(path[-1].get("id")))
        if following is None or following is start:
            raise RequestError("a vector path that branches or has gaps covers no area: draw one closed path")
        path.append(following)
    return path


def _segment(start: Mapping[str, Any], end: Mapping[str, Any]) -> Float[np.ndarray, "_ 2"]:
    """Return the points from one vertex up to the next, in percent: of a curve, if one of them has a handle there."""
    first, last = _point(start), _point(end)
    leaving, arriving = _handle(start, "controlPoint2"), _handle(end, "controlPoint1")
    if leaving is None and arriving is None:
        return first[None]
    leaving = first + _MISSING_HANDLE * (last - first) if leaving is None else leaving
    arriving = last - _MISSING_HANDLE * (last - first) if arriving is None else arriving
    t = np.arange(_STEPS)[:, None] / _STEPS
    return (1 - t) ** 3 * first + 3 * (1 - t) ** 2 * t * leaving + 3 * (1 - t) * t**2 * arriving + t**3 * last


def _handle(vertex: Mapping[str, Any], name: str) -> Float[np.ndarray, "2"] | None:
    point = vertex.get(name) if vertex.get("isBezier") else None
    return _point(point) if isinstance(point, dict) else None


def _point(document: Mapping[str, Any]) -> Float[np.ndarray, "2"]:
    return np.array([number(document.get("x")), number(document.get("y"))])
