"""Segmentation: from an image by way of its features to its cut tree, and the papers' algorithms as functions."""

from walkcut.segmentation.algorithms.autosc import autosc
from walkcut.segmentation.algorithms.diffcut import diffcut
from walkcut.segmentation.algorithms.diffseg import diffseg
from walkcut.segmentation.algorithms.pamr import pamr

__all__ = ["autosc", "diffcut", "diffseg", "pamr"]
