"""Bitmask regions: a PNG of the image's size, black in the mask and transparent elsewhere, as a data URL."""

from collections.abc import Mapping, Sequence
from typing import Any

from walkcut.labelstudio.shapes import data_url
from walkcut.labelstudio.shapes.percent import Mask, Size


def encode(masks: Sequence[Mask], tolerance: float) -> list[dict[str, Any]]:  # noqa: ARG001 - masks are exact
    """Return the value of each mask."""
    return [{"imageDataURL": data_url.encode(mask)} for mask in masks]


def decode(value: Mapping[str, Any], size: Size) -> Mask:
    """Return the pixels that are not fully transparent, as the editor counts them. Raises `BrushError`."""
    return data_url.decode(value.get("imageDataURL"), size) > 0
