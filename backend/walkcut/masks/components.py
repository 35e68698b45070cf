"""The connected parts of a mask."""

import numpy as np
from jaxtyping import Bool
from scipy.ndimage import label

Mask = Bool[np.ndarray, "y x"]


def connected_parts(mask: Mask) -> list[Mask]:
    """Return the parts of a mask whose pixels touch along their edges, largest first; of equal ones the upper first.

    >>> [part.astype(int).tolist() for part in connected_parts(np.array([[True, False, False], [False, True, True]]))]
    [[[0, 0, 0], [0, 1, 1]], [[1, 0, 0], [0, 0, 0]]]
    """
    parts, count = label(mask)
    if count < 2:
        return [mask] * count
    order = np.argsort(-np.bincount(parts.ravel())[1:], kind="stable") + 1
    return [parts == part for part in order]
