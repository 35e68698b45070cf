"""Bitmask regions: a PNG."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from walkcut.labelstudio.shapes import png
from walkcut.masks.raster import Mask, Size


def encode(masks: Iterable[Mask], _tolerance: float) -> Iterator[dict[str, Any]]:
    """Yield the value of each mask."""
    return ({"imageDataURL": png.encode(mask)} for mask in masks)


def decode(value: Mapping[str, Any], size: Size) -> Mask:
    """Return the mask of a value. Raises `BrushError`."""
    return png.decode(value.get("imageDataURL"), size)
