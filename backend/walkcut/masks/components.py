"""TEMP."""

import numpy as np
from skimage.measure import label


def connected_parts(mask):
    parts = label(mask, connectivity=1)
    sizes = np.bincount(parts.ravel())[1:]
    return [parts == i + 1 for i in np.argsort(-sizes, kind="stable")]
