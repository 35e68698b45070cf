"""Overlays: a segmentation drawn over its image, neighbours in different colours."""

import numpy as np
from jaxtyping import Bool, Integer, UInt8
from scipy.ndimage import grey_dilation, grey_erosion

from walkcut.errors import SegmentationError
from walkcut.hierarchy.adjacency import colour_graph

# Distinct, also for the colour-blind (from Tol's and Okabe & Ito's sets).
_COLOURS = bytes.fromhex("4477aa ee7733 228833 ccbb44 aa3377 66ccee ee6677 009e73")
_PALETTE = np.frombuffer(_COLOURS, np.uint8).reshape(-1, 3).astype(np.float32)
_OPACITY = 0.45  # of the colours
_PIXELS_PER_WIDTH = 400  # of the shorter side, for each pixel of an outline's half width


def draw_overlay(image: UInt8[np.ndarray, "y x 3"], labels: Integer[np.ndarray, "h w"]) -> UInt8[np.ndarray, "y x 3"]:
    """Return the image tinted by segment, with white outlines. Raises `SegmentationError` where sizes differ."""
    if image.shape[:2] != labels.shape:
        raise SegmentationError(f"labels of {labels.shape} do not fit an image of {image.shape[:2]}")
    colours = _PALETTE[colour_graph(labels, len(_PALETTE))]
    tinted = image * np.float32(1 - _OPACITY) + colours[labels] * np.float32(_OPACITY)
    tinted[outlines(labels, width=max(1, round(min(labels.shape) / _PIXELS_PER_WIDTH)))] = 255
    return tinted.astype(np.uint8)


def outlines(labels: Integer[np.ndarray, "y x"], *, width: int) -> Bool[np.ndarray, "y x"]:
    """Return the pixels with another segment at most `width` pixels away along both axes."""
    window = (2 * width + 1, 2 * width + 1)
    return np.asarray(grey_dilation(labels, window, mode="nearest") != grey_erosion(labels, window, mode="nearest"))
