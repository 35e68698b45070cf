"""Connected parts of a mask."""

import numpy as np
from jaxtyping import Bool
from scipy import ndimage


def components(mask: Bool[np.ndarray, "y x"]) -> list[Bool[np.ndarray, "y x"]]:
    """Return the parts of a mask that are connected along edges of pixels, largest first, then in reading order.

    >>> [part.tolist() for part in components(np.array([[True, False, True], [False, True, True]]))]
    [[[False, False, True], [False, True, True]], [[True, False, False], [False, False, False]]]
    """
    labels, count = ndimage.label(mask)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    return [labels == part + 1 for part in np.argsort(-sizes, kind="stable")]
