"""Shapes in results, in percent of the image -> masks of the image's size."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from jaxtyping import Bool
from PIL import Image, ImageDraw
from skimage import draw

from walkcut.errors import BrushError, RequestError
from walkcut.labelstudio import brush

_MAX_PERCENT: Final = 1000.0  # a shape farther out was not drawn on an image
_MAX_PAINTED_PIXELS: Final = 10**11  # all strokes of one region together: about five seconds
Size = tuple[int, int]  # height and width
Mask = Bool[np.ndarray, "y x"]
_Points = list[tuple[float, float]]  # x and y


def _brush_mask(value: Mapping[str, Any], size: Size) -> Mask:
    """Return a brush mask with the strokes that a draft has not yet merged into it drawn on top."""
    rle, strokes = value.get("rle") or [], value.get("touches") or []
    if not (isinstance(rle, list) and isinstance(strokes, list) and {*map(type, rle)} <= {int}):
        raise BrushError("a brush region needs a run-length code that is a list of bytes, and a list of strokes")
    if not (rle or strokes):
        raise BrushError("a brush region has neither a run-length code nor strokes")
    mask = brush.decode(rle, size) if rle else np.zeros(size, np.bool_)
    image = Image.fromarray(mask.astype(np.uint8))
    paths = [_stroke_path(stroke, size) for stroke in strokes]
    if sum(len(points) * min(width * width, mask.size) for points, width in paths) > _MAX_PAINTED_PIXELS:
        raise RequestError("the brush strokes cover the image too many times: draw fewer")
    for stroke, (points, width) in zip(strokes, paths, strict=True):
        _draw_stroke(ImageDraw.Draw(image), points, width, ink=0 if stroke.get("type") == "eraser" else 1)
    return np.asarray(image) > 0


def _draw_stroke(canvas: ImageDraw.ImageDraw, points: _Points, width: float, *, ink: int) -> None:
    """Draw one stroke, a line with round ends and joints."""
    radius = (width - 1) / 2
    canvas.line(points, fill=ink, width=round(width))
    canvas.point([(round(x), round(y)) for x, y in points], fill=ink)  # Pillow's disc of one pixel is empty
    for x, y in points:
        canvas.ellipse((x - radius, y - radius, x + radius, y + radius), fill=ink)


def _stroke_path(stroke: object, size: Size) -> tuple[_Points, float]:
    """Return the points (x, y) of a stroke, from the centre of the first pixel, and its width, in pixels.

    `relativePoints` (x, y, x, …) are percent of the image, `relativeStrokeWidth` percent of its width. `points` and
    `strokeWidth`, used where those are missing, are taken as pixels of the image.
    """
    if not isinstance(stroke, dict):
        raise RequestError(f"a brush stroke is an object, not {type(stroke).__name__}")
    if stroke.get("relativePoints"):
        numbers, width, limit = stroke["relativePoints"], stroke.get("relativeStrokeWidth"), _MAX_PERCENT
        scale = size[1] / 100, size[0] / 100
    else:
        numbers, width, limit = stroke.get("points"), stroke.get("strokeWidth"), _MAX_PERCENT / 100 * max(size)
        scale = 1.0, 1.0
    if not isinstance(numbers, list) or not numbers or len(numbers) % 2:
        raise RequestError("a brush stroke needs points, each an x and a y")
    x, y = ([_number(value, limit) * factor - 0.5 for value in numbers[axis::2]] for axis, factor in enumerate(scale))
    return list(zip(x, y, strict=True)), max(1.0, _number(width, limit, minimum=0) * scale[0])


def _rectangle_mask(value: Mapping[str, Any], size: Size) -> Mask:
    """Return the mask of a rectangle, rotated clockwise about its upper left corner."""
    x, y = _position(value, size)
    width, height = _length(value, "width", size[1]), _length(value, "height", size[0])
    sine, cosine = math.sin(_rotation(value)), math.cos(_rotation(value))
    right, down = (cosine * width, sine * width), (-sine * height, cosine * height)
    corners = [(0.0, 0.0), right, (right[0] + down[0], right[1] + down[1]), down]
    return _fill_polygon([(x + dx, y + dy) for dx, dy in corners], size)


def _ellipse_mask(value: Mapping[str, Any], size: Size) -> Mask:
    """Return the mask of an ellipse, rotated clockwise about its centre."""
    x, y = _position(value, size)
    radii = _length(value, "radiusX", size[1]), _length(value, "radiusY", size[0])
    return _fill_ellipse(x, y, radii, size, rotation=_rotation(value))


def _polygon_mask(value: Mapping[str, Any], size: Size) -> Mask:
    """Return the mask of a polygon of at least three points."""
    points = value.get("points")
    if not isinstance(points, list) or len(points) < 3 or not all(isinstance(p, list) and len(p) == 2 for p in points):
        raise RequestError("a polygon needs three points, each an x and a y")
    height, width = size
    corners = [(_number(x, _MAX_PERCENT) * width / 100, _number(y, _MAX_PERCENT) * height / 100) for x, y in points]
    return _fill_polygon(corners, size)


def _key_point_mask(value: Mapping[str, Any], size: Size) -> Mask:
    """Return a disc of the point's width (percent of the image's), or at least the pixel at its centre."""
    x, y = _position(value, size)
    radius = _length(value, "width", size[1]) / 2
    mask = _fill_ellipse(x, y, (radius, radius), size)
    if 0 <= x <= size[1] and 0 <= y <= size[0]:
        mask[min(int(y), size[0] - 1), min(int(x), size[1] - 1)] = True
    return mask


MASKS: Final[Mapping[str, Callable[[Mapping[str, Any], Size], Mask]]] = {
    "brushlabels": _brush_mask,
    "brush": _brush_mask,
    "rectanglelabels": _rectangle_mask,
    "ellipselabels": _ellipse_mask,
    "polygonlabels": _polygon_mask,
    "keypointlabels": _key_point_mask,
}


def _fill_ellipse(x: float, y: float, radii: tuple[float, float], size: Size, *, rotation: float = 0.0) -> Mask:
    """Return the pixels whose centres lie in an ellipse with radii along x and y, raised to half a pixel."""
    mask = np.zeros(size, np.bool_)
    radius_x, radius_y = (max(radius, 0.5) for radius in radii)
    counterclockwise = -math.remainder(rotation, math.tau)
    mask[draw.ellipse(y - 0.5, x - 0.5, radius_y, radius_x, shape=size, rotation=counterclockwise)] = True
    return mask


def _fill_polygon(corners: Sequence[tuple[float, float]], size: Size) -> Mask:
    """Return the pixels whose centres lie inside corners (x, y) in pixels, by the even-odd rule.

    Each edge flips all pixels to its right in the rows that it crosses, so that the work grows with the number of
    corners plus the number of pixels, not with their product.
    """
    height, width = size
    flips = np.zeros((height, width + 1), np.bool_)
    points = np.array(corners) - 0.5
    for (left, top), (right, bottom) in zip(points, np.roll(points, -1, axis=0), strict=True):
        start, stop = (math.ceil(min(max(end, 0), height)) for end in sorted((top, bottom)))
        rows = np.arange(start, stop)
        crossed = left + (rows - top) * (right - left) / ((bottom - top) or 1)
        flips[rows, np.ceil(crossed.clip(0, width)).astype(np.int64)] ^= True
    return np.bitwise_xor.accumulate(flips[:, :width], axis=1)


def _position(value: Mapping[str, Any], size: Size) -> tuple[float, float]:
    """Return a shape's x and y in pixels, from percent."""
    return _number(value.get("x"), _MAX_PERCENT) * size[1] / 100, _number(value.get("y"), _MAX_PERCENT) * size[0] / 100


def _length(value: Mapping[str, Any], name: str, side: int) -> float:
    """Return a length in pixels, from percent of a side of the image."""
    return _number(value.get(name), _MAX_PERCENT, minimum=0) * side / 100


def _rotation(value: Mapping[str, Any]) -> float:
    """Return a clockwise angle in radians, from degrees."""
    return math.radians(_number(value.get("rotation", 0), _MAX_PERCENT))


def _number(value: object, maximum: float, *, minimum: float | None = None) -> float:
    """Return a number from `minimum` (default: `-maximum`) to `maximum`. Raises `RequestError` for anything else."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise RequestError(f"a shape needs a number, not {type(value).__name__}")
    if not (-maximum if minimum is None else minimum) <= value <= maximum:
        raise RequestError(f"{value!s:.20} is out of range for a shape on an image")
    return float(value)
