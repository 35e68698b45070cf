"""Brush regions: a run-length code of the mask; in drafts also an image of it, and strokes on top."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from PIL import Image, ImageDraw

from walkcut.errors import BrushError, RequestError
from walkcut.labelstudio.shapes import data_url, rle
from walkcut.labelstudio.shapes.percent import MAX_PERCENT, Mask, Size, number

_MAX_PAINTED_PIXELS: Final = 10**11  # all strokes of one region together: about five seconds
_OPAQUE: Final = 128  # of 255, as in a run-length code
_Points = list[tuple[float, float]]  # x and y


def encode(masks: Sequence[Mask], tolerance: float) -> list[dict[str, Any]]:  # noqa: ARG001 - masks are exact
    """Return the value of each mask: its run-length code."""
    return [{"format": "rle", "rle": rle.encode(mask)} for mask in masks]


def decode(value: Mapping[str, Any], size: Size) -> Mask:
    """Return a brush region's mask with the strokes that a draft has not yet merged into it drawn on top.

    Drafts of the magic wand have the image `maskDataURL` instead of a run-length code, or beside it.
    """
    code, strokes, url = value.get("rle") or [], value.get("touches") or [], value.get("maskDataURL")
    if not (isinstance(code, list) and isinstance(strokes, list) and {*map(type, code)} <= {int}):
        raise BrushError("a brush region needs a run-length code that is a list of bytes, and a list of strokes")
    if not (code or strokes or url):
        raise BrushError("a brush region has neither a run-length code nor strokes nor an image of its mask")
    mask = rle.decode(code, size) if code else np.zeros(size, np.bool_)
    if url:
        mask |= data_url.decode(url, size) >= _OPAQUE
    return _draw_strokes(mask, strokes, size) if strokes else mask


def _draw_strokes(mask: Mask, strokes: Sequence[Any], size: Size) -> Mask:
    """Draw strokes, or erase with them, one after the other."""
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
