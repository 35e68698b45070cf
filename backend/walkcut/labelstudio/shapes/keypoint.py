"""Key point regions."""

from collections.abc import Mapping
from typing import Any

from walkcut.labelstudio.shapes.percent import Mask, Size, length, position
from walkcut.masks.raster import fill_ellipse


def decode(value: Mapping[str, Any], size: Size) -> Mask:
    """Return a disc of the point's width (percent of the image's), or at least the pixel at its centre."""
    x, y = position(value, size)
    radius = length(value, "width", size[1]) / 2
    mask = fill_ellipse((x, y), (radius, radius), size)
    if 0 <= x <= size[1] and 0 <= y <= size[0]:
        mask[min(int(y), size[0] - 1), min(int(x), size[1] - 1)] = True
    return mask
