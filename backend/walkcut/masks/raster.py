"""Polygons and ellipses as masks: a pixel is inside if its centre is."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool
from skimage import draw

Mask = Bool[np.ndarray, "y x"]
Size = tuple[int, int]  # height and width


def fill_polygon(corners: Sequence[tuple[float, float]], size: Size) -> Mask:
    """Return the pixels inside corners (x, y) in pixels, by the even-odd rule, as a mask of `size` (height, width).

    Each edge flips all pixels to its right in the rows that it crosses, so that the work grows with the number of
    corners plus the number of pixels, not with their product.

    >>> fill_polygon([(1, 0), (3, 0), (3, 1), (1, 1)], (1, 4)).astype(int)
    array([[0, 1, 1, 0]])
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


def fill_ellipse(x: float, y: float, radii: tuple[float, float], size: Size, *, rotation: float = 0.0) -> Mask:
    """Return the pixels in an ellipse about (x, y), in pixels, as a mask of `size` (height, width).

    The radii along x and y are raised to half a pixel; the rotation is clockwise, in radians.
    """
    mask = np.zeros(size, np.bool_)
    radius_x, radius_y = (max(radius, 0.5) for radius in radii)
    counterclockwise = -math.remainder(rotation, math.tau)
    mask[draw.ellipse(y - 0.5, x - 0.5, radius_y, radius_x, shape=size, rotation=counterclockwise)] = True
    return mask
