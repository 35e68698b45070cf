"""Numbers of shapes: Label Studio's coordinates are percent of the image's width and height."""

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from jaxtyping import Bool, Float, Shaped

from walkcut.errors import RequestError

Size = tuple[int, int]  # height and width
Mask = Bool[np.ndarray, "y x"]

MAX_PERCENT: Final = 1000.0  # a shape farther out was not drawn on an image
_MAX_LENGTH: Final = 1e7  # of a turned shape: percent of the width also where it runs down a tall image
_DIGITS: Final = 8  # after the point


def number(value: object, maximum: float = MAX_PERCENT, *, minimum: float | None = None) -> float:
    """Return a number from `minimum` (default: `-maximum`) to `maximum`. Raises `RequestError` for anything else."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise RequestError(f"a shape needs a number, not {type(value).__name__}")
    if not (-maximum if minimum is None else minimum) <= value <= maximum:
        raise RequestError(f"{value!s:.20} is out of range for a shape on an image")
    return float(value)


def position(value: Mapping[str, Any], size: Size) -> tuple[float, float]:
    """Return a shape's x and y in pixels."""
    return number(value.get("x")) * size[1] / 100, number(value.get("y")) * size[0] / 100


def length(value: Mapping[str, Any], name: str, side: int) -> float:
    """Return a length in pixels, from percent of a side of the image."""
    return number(value.get(name), _MAX_LENGTH, minimum=0) * side / 100


def rotation(value: Mapping[str, Any]) -> float:
    """Return a clockwise angle in radians, from degrees."""
    return math.radians(number(value.get("rotation") or 0))


def to_percent(points: Shaped[np.ndarray, "_ 2"], size: Size) -> Float[np.ndarray, "_ 2"]:
    """Return points (x, y) in pixels as percent of an image's width and height, exact to a millionth of a pixel."""
    return np.round(points * 100 / np.array(size[::-1]), _DIGITS)
