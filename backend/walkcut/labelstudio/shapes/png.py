"""Masks as PNG data URLs with transparency, as the editor keeps them."""

from base64 import b64decode, b64encode
from binascii import Error
from io import BytesIO
from typing import Final

import numpy as np
from PIL import Image, UnidentifiedImageError

from walkcut.errors import BrushError
from walkcut.masks.raster import Mask, Size

_PREFIX: Final = "data:image/png;base64,"


def encode(mask: Mask) -> str:
    """Return a mask as the address of a PNG: black where it is, transparent elsewhere.

    It has a palette of two colours, which takes a fraction of the bytes and of the time of four channels.
    """
    image = Image.fromarray(mask.view(np.uint8), "P")
    image.putpalette([0, 0, 0] * 2)
    buffer = BytesIO()
    image.save(buffer, "PNG", transparency=bytes([0, 255]), bits=1)
    return _PREFIX + b64encode(buffer.getvalue()).decode()


def decode(address: object, size: Size) -> Mask:
    """Return the mask of a PNG's address: the pixels that are not wholly transparent.

    Raises `BrushError` for anything but a PNG of `size` (height, width).
    """
    if not isinstance(address, str) or not address.startswith(_PREFIX):
        raise BrushError(f"a mask that is no run-length code is an address that begins with {_PREFIX}")
    try:
        with Image.open(BytesIO(b64decode(address[len(_PREFIX) :])), formats=["PNG"]) as image:
            if image.size != (size[1], size[0]):
                raise BrushError(f"the mask has {image.width}×{image.height} pixels, its image {size[1]}×{size[0]}")
            alpha = np.asarray(image.convert("RGBA").getchannel("A"))
    except (Error, UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BrushError(f"the mask is not a PNG that can be read ({error})") from error
    return alpha > 0
