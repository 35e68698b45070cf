"""Brush regions: a run-length code, strokes, or a PNG."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import numpy as np
from PIL import Image, ImageDraw

from walkcut.errors import BrushError, RequestError
from walkcut.labelstudio import brush as codec
from walkcut.labelstudio.shapes import png
from walkcut.labelstudio.shapes.numbers import MAX_PERCENT, number
from walkcut.masks.raster import Mask, Size

_MAX_PAINTED_PIXELS: Final = 10**11  # all strokes of one region together: about five seconds
_Points = list[tuple[float, float]]  # x and y


def encode(masks: Iterable[Mask], _tolerance: float) -> Iterator[dict[str, Any]]:
    """Yield the value of each mask."""
    return ({"format": "rle", "rle": codec.encode(mask)} for mask in masks)


def decode(value: Mapping[str, Any], size: Size) -> Mask:
    """Return a mask with the strokes that a draft has not yet merged into it drawn on top.

    A magic wand's is a PNG, until it is submitted. Raises `BrushError` or `RequestError`.
    """
    code, strokes = value.get("rle") or [], value.get("touches") or []
    if not (isinstance(code, list) and isinstance(strokes, list) and {*map(type, code)} <= {int}):
        raise BrushError("a brush region needs a run-length code that is a list of bytes, and a list of strokes")
    if value.get("maskDataURL"):
        mask = png.decode(value["maskDataURL"], size)  # Label Studio shows it before the code
    elif code or strokes:
        mask = codec.decode(code, size) if code else np.zeros(size, np.bool_)
    else:
        raise BrushError("a brush region has neither a run-length code nor strokes")
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
        numbers, width, limit = stroke["relativePoints"], stroke.get("relativeStrokeWidth"), MAX_PERCENT
        scale = size[1] / 100, size[0] / 100
    else:
        numbers, width, limit = stroke.get("points"), stroke.get("strokeWidth"), MAX_PERCENT / 100 * max(size)
        scale = 1.0, 1.0
    if not isinstance(numbers, list) or not numbers or len(numbers) % 2:
        raise RequestError("a brush stroke needs points, each an x and a y")
    x, y = ([number(value, limit) * factor - 0.5 for value in numbers[axis::2]] for axis, factor in enumerate(scale))
    return list(zip(x, y, strict=True)), max(1.0, number(width, limit, minimum=0) * scale[0])
