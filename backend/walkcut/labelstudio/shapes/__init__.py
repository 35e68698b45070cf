"""Shapes of regions: masks as the values of Label Studio's results, and back."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from walkcut.labelstudio.shapes import bitmask, brush, ellipse, keypoint, polygon, rectangle, vector
from walkcut.masks.raster import Mask, Size

CONNECTED: Final = frozenset({"polygon", "vector", "ellipse", "rectangle"})  # shapes of one connected part
_ENCODERS: Final[Mapping[str, Callable[[Iterable[Mask], float], Iterator[dict[str, Any]]]]] = {
    "brush": brush.encode,
    "bitmask": bitmask.encode,
    "polygon": polygon.encode,
    "vector": vector.encode,
    "ellipse": ellipse.encode,
    "rectangle": rectangle.encode,
}
_DECODERS: Final[Mapping[str, Callable[[Mapping[str, Any], Size], Mask]]] = {
    "brush": brush.decode,
    "bitmask": bitmask.decode,
    "polygon": polygon.decode,
    "vector": vector.decode,
    "ellipse": ellipse.decode,
    "rectangle": rectangle.decode,
    "keypoint": keypoint.decode,
}


def encode(shape: str, masks: Iterable[Mask], tolerance: float) -> Iterator[dict[str, Any]]:
    """Yield the value of each mask of an image, without labels; polygons and vectors have a `tolerance` in pixels.

    >>> import numpy as np
    >>> [value] = encode("rectangle", [np.array([[False, True], [False, True]])], 1.0)
    >>> value
    {'x': 50.0, 'y': 0.0, 'width': 50.0, 'height': 100.0, 'rotation': 0}
    """
    return _ENCODERS[shape](masks, tolerance)


def decode(shape: str, value: Mapping[str, Any], size: Size) -> Mask:
    """Return the mask of a value on an image of `size` (height, width). Raises `BrushError` or `RequestError`."""
    return _DECODERS[shape](value, size)
