"""Bounding boxes of masks."""

import numpy as np
from jaxtyping import Bool


def bounding_box(mask: Bool[np.ndarray, "y x"]) -> tuple[slice, slice]:
    """Return the rows and columns of a mask's bounding box, which holds no pixel where the mask is empty.

    >>> bounding_box(np.array([[False, True, True], [False, False, False]]))
    (slice(0, 1, None), slice(1, 3, None))
    """
    rows = _span(np.any(mask, 1))
    return rows, _span(np.any(mask[rows], 0))


def _span(is_inside: Bool[np.ndarray, " n"]) -> slice:
    indices = np.flatnonzero(is_inside)
    return slice(int(indices[0]), int(indices[-1]) + 1) if indices.size else slice(0, 0)
