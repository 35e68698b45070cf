"""Pure segmentation: tensors in, tensors and cut trees out; no path, no request, no environment."""

from walkcut.segmentation.autosc import autosc
from walkcut.segmentation.diffcut import diffcut
from walkcut.segmentation.diffseg import diffseg
from walkcut.segmentation.pamr import pamr

__all__ = ["autosc", "diffcut", "diffseg", "pamr"]
