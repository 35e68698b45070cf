"""Numbers of shapes: percent of an image's sides, and degrees."""

import math
from collections.abc import Mapping
from typing import Any, Final

from walkcut.errors import RequestError
from walkcut.masks.raster import Size

MAX_PERCENT: Final = 1000.0  # a shape farther out was not drawn on an image


def position(value: Mapping[str, Any], size: Size) -> tuple[float, float]:
    """Return a shape's x and y in pixels, from percent."""
    return number(value.get("x"), MAX_PERCENT) * size[1] / 100, number(value.get("y"), MAX_PERCENT) * size[0] / 100


def length(value: Mapping[str, Any], name: str, side: int) -> float:
    """Return a length in pixels, from percent of a side of the image."""
    return number(value.get(name), MAX_PERCENT, minimum=0) * side / 100


def rotation(value: Mapping[str, Any]) -> float:
    """Return a clockwise angle in radians, from degrees."""
    return math.radians(number(value.get("rotation", 0), MAX_PERCENT))


def number(value: object, maximum: float, *, minimum: float | None = None) -> float:
    """Return a number from `minimum` (default: `-maximum`) to `maximum`. Raises `RequestError` for anything else."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise RequestError(f"a shape needs a number, not {type(value).__name__}")
    if not (-maximum if minimum is None else minimum) <= value <= maximum:
        raise RequestError(f"{value!s:.20} is out of range for a shape on an image")
    return float(value)
