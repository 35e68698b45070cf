"""Shapes filled with pixels: a pixel is inside where its centre is."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Shaped
from skimage import draw

_ROUNDING = 1e-6  # pixels: an edge this near to a pixel's centre passes through it, as percentages are rounded


def fill_polygon(rings: Sequence[Shaped[np.ndarray, "_ 2"]], size: tuple[int, int]) -> Bool[np.ndarray, "y x"]:
    """Return the pixels of an image of `size` (height, width) inside rings of corners (x, y), by the even-odd rule.

    A centre on an edge belongs to the right-hand side. Each edge flips all pixels to its right in the rows that it
    crosses, so that the work grows with the number of corners plus the number of pixels, not with their product.

    >>> fill_polygon([np.array([[0, 0], [2, 0], [0, 2]])], (2, 3)).astype(int).tolist()
    [[1, 0, 0], [0, 0, 0]]
    """
    mask = np.zeros(size, np.bool_)
    corners = np.concatenate(rings)
    (left, top), (right, bottom) = corners.min(0), corners.max(0)
    rows, columns = (
        slice(*(math.floor(min(max(side, 0), length)) for side in sides))
        for sides, length in (((top, bottom + 1), size[0]), ((left, right + 1), size[1]))
    )
    height, width = mask[rows, columns].shape
    flips = np.zeros((height, width + 1), np.bool_)
    for ring in rings:
        _flip_right(flips, ring - np.array([columns.start, rows.start]) - 0.5)
    mask[rows, columns] = np.bitwise_xor.accumulate(flips[:, :width], axis=1)
    return mask


def _flip_right(flips: Bool[np.ndarray, "y x"], points: Shaped[np.ndarray, "_ 2"]) -> None:
    """Flip the first pixel to the right of each edge of a ring, in each row."""
    height, width = flips.shape
    for (left, top), (right, bottom) in zip(points.tolist(), np.roll(points, -1, axis=0).tolist(), strict=True):
        start, stop = (math.ceil(min(max(end, 0), height)) for end in sorted((top, bottom)))
        rows = np.arange(start, stop)
        crossed = left + (rows - top) * (right - left) / ((bottom - top) or 1)
        flips[rows, np.ceil((crossed - _ROUNDING).clip(0, width - 1)).astype(np.int64)] ^= True


def fill_ellipse(
    centre: tuple[float, float], radii: tuple[float, float], size: tuple[int, int], *, rotation: float = 0.0
) -> Bool[np.ndarray, "y x"]:
    """Return the pixels inside an ellipse with centre (x, y) and radii along x and y, raised to half a pixel.

    `rotation` is clockwise, in radians.
    """
    mask = np.zeros(size, np.bool_)
    (x, y), (radius_x, radius_y) = centre, (max(radius, 0.5) for radius in radii)
    counterclockwise = -math.remainder(rotation, math.tau)
    mask[draw.ellipse(y - 0.5, x - 0.5, radius_y, radius_x, shape=size, rotation=counterclockwise)] = True
    return mask
