"""Masks as the alpha of PNG images in data URLs."""

import base64
import binascii
import io
import struct
from typing import Final

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from walkcut.errors import BrushError
from walkcut.images.decode import DECODE_ERRORS
from walkcut.images.metadata import strip_png
from walkcut.labelstudio.shapes.percent import Mask, Size

_PREFIX: Final = "data:image/png;base64,"
_HEADER: Final = struct.Struct(">8s4x4sII")  # signature, IHDR, width, height (PNG, section 11.2.1)


def encode(mask: Mask) -> str:
    """Return a PNG, black in the mask and transparent elsewhere.

    Its two colours take one bit per pixel: the editor decodes the same pixels from it as from the four bytes per pixel
    that it writes itself, which take ten times as long and thirty times the room.
    """
    image = Image.frombytes("P", mask.shape[::-1], mask.astype(np.uint8).tobytes())
    image.putpalette([0] * 6)
    file = io.BytesIO()
    image.save(file, "PNG", bits=1, transparency=b"\x00\xff")
    return _PREFIX + base64.b64encode(file.getvalue()).decode()


def decode(url: object, size: Size) -> UInt8[np.ndarray, "y x"]:
    """Return the alpha of each pixel of a PNG of `size` (height, width); 255 throughout in one without transparency.

    The size is checked before pixels are decoded. Raises `BrushError` for anything but a PNG of that size.
    """
    if not isinstance(url, str) or not url.startswith(_PREFIX):
        raise BrushError(f"a mask's image needs to be a PNG in a data URL that begins with {_PREFIX}")
    try:
        data = base64.b64decode(url[len(_PREFIX) :], validate=True)
        signature, chunk, width, height = _HEADER.unpack_from(data)
    except (binascii.Error, struct.error, ValueError) as error:
        raise BrushError("a mask's data URL holds no complete base64 code of a PNG") from error
    if (signature, chunk) != (b"\x89PNG\r\n\x1a\n", b"IHDR"):
        raise BrushError("a mask's data URL holds no PNG")
    if (height, width) != size:
        raise BrushError(f"a mask's image has {width}×{height} pixels, not {size[1]}×{size[0]} as the labelled image")
    try:
        image = PngImageFile(io.BytesIO(strip_png(data)))
        return np.asarray(image.convert("RGBA").getchannel("A"))
    except DECODE_ERRORS as error:
        raise BrushError("a mask's PNG is damaged") from error
