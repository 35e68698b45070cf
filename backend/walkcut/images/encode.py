"""Encode arrays as image files."""

import io

import numpy as np
from jaxtyping import UInt8, UInt16
from PIL import Image


def encode_png(image: UInt16[np.ndarray, "y x"] | UInt8[np.ndarray, "y x 3"]) -> bytes:
    """Return a PNG file with the same values: 16-bit grey for label maps, or RGB."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()
