"""Shapes of regions: from masks to the `value` of Label Studio's results, without its labels, and back."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from walkcut.errors import BrushError
from walkcut.labelstudio.shapes import bitmask, brush, ellipse, keypoint, polygon, rectangle, vector
from walkcut.labelstudio.shapes.percent import Mask, Size


@dataclass(frozen=True)
class Shape:
    """How regions of one shape are read and, but for key points, written.

    `is_exact`: the values hold every pixel. `is_connected`: a value holds one part connected along edges of pixels.
    """

    decode: Callable[[Mapping[str, Any], Size], Mask]
    encode: Callable[[Sequence[Mask], float], list[dict[str, Any]]] | None = None
    is_exact: bool = False
    is_connected: bool = False


SHAPES: Final[Mapping[str, Shape]] = {
    "brush": Shape(brush.decode, brush.encode, is_exact=True),
    "bitmask": Shape(bitmask.decode, bitmask.encode, is_exact=True),
    "polygon": Shape(polygon.decode, polygon.encode, is_connected=True),
    "vector": Shape(vector.decode, vector.encode, is_connected=True),
    "rectangle": Shape(rectangle.decode, rectangle.encode),
    "ellipse": Shape(ellipse.decode, ellipse.encode),
    "keypoint": Shape(keypoint.decode),
}

SHAPE_OF_TYPE: Final[Mapping[str, str]] = {
    **{name + suffix: name for name in SHAPES for suffix in ("", "labels")},
    "magicwand": "brush",
}
"""The shape of each type of a result: that of its control tag, with or without labels."""


def decode(result_type: str, value: Mapping[str, Any], size: Size) -> Mask:
    """Return the mask of a result's `value` on an image of `size` (height, width).

    `result_type` is a key of `SHAPE_OF_TYPE`. Raises `BrushError` or `RequestError` for malformed values.

    >>> decode("rectanglelabels", {"x": 50, "y": 0, "width": 50, "height": 100}, (1, 2))
    array([[False,  True]])
    """
    return SHAPES[SHAPE_OF_TYPE[result_type]].decode(value, size)


def encode(shape: str, masks: Sequence[Mask], tolerance: float) -> list[dict[str, Any]]:
    """Return a `value` for each mask of one image; `tolerance` is how far polygons may be from the border, in pixels.

    `shape` is a key of `SHAPES` that can be written. Raises `BrushError` for an empty mask, and for one of several
    parts where the shape `is_connected`.

    >>> import numpy as np
    >>> encode("rectangle", [np.array([[False, True]])], 1.0)
    [{'x': 50.0, 'y': 0.0, 'width': 50.0, 'height': 100.0, 'rotation': 0}]
    """
    write = SHAPES[shape].encode
    if write is None:
        raise BrushError(f"regions cannot be written as {shape}: use one of {', '.join(writable_shapes())}")
    for index, mask in enumerate(masks):
        if not mask.any():
            raise BrushError(f"mask {index} covers no pixel: leave it out")
    return write(masks, tolerance)


def writable_shapes() -> tuple[str, ...]:
    """Return the names of the shapes that masks can be written as."""
    return tuple(name for name, shape in SHAPES.items() if shape.encode)
