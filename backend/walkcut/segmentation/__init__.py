"""Pure segmentation: tensors in, tensors and cut trees out; no path, no request, no environment."""

from walkcut.segmentation.algorithms.autosc import autosc
from walkcut.segmentation.algorithms.diffcut import diffcut
from walkcut.segmentation.algorithms.diffseg import diffseg
from walkcut.segmentation.algorithms.pamr import pamr

__all__ = ["autosc", "diffcut", "diffseg", "pamr"]
