"""Connected parts of a mask."""

import numpy as np
from jaxtyping import Bool
from scipy import ndimage

from walkcut.masks.bounds import bounding_box


def components(mask: Bool[np.ndarray, "y x"]) -> list[Bool[np.ndarray, "y x"]]:
    """Return the parts of a mask that are connected along edges of pixels, largest first, then in reading order.

    >>> [part.tolist() for part in components(np.array([[True, False, True], [False, True, True]]))]
    [[[False, False, True], [False, True, True]], [[True, False, False], [False, False, False]]]
    """
    box = bounding_box(mask)
    labels, count = ndimage.label(mask[box])
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    parts = [np.zeros_like(mask) for _ in sizes]
    for part, largest in zip(parts, np.argsort(-sizes, kind="stable"), strict=True):
        part[box] = labels == largest + 1
    return parts
