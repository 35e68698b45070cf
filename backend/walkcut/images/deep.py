"""Files of more than 8 bits per sample -> their samples. Of colours, Pillow by itself keeps the high bytes only."""

import io
import math
import sys
from typing import Final

import numpy as np
from jaxtyping import Num, UInt8, UInt16
from PIL import ImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import ImageFileDirectory_v2, TiffImageFile

from walkcut.images.levels import Samples

_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0  # a tag of TIFF 6.0, and its value
_BITS, _SAMPLES, _PLANAR, _EXTRA_SAMPLES, _SAMPLE_FORMAT = 258, 277, 284, 338, 339  # tags of TIFF 6.0
_SEPARATE, _PREMULTIPLIED = 2, 1  # and their values
_WHITE_LEVELS: Final = {"I;16": 65535.0, "I;16B": 65535.0, "I;16L": 65535.0, "I": 65535.0, "F": 1.0}
_PNG_MODES: Final = ("RGB;16B", "RGBA;16B", "LA;16B")
_NATIVE: Final = "L" if sys.byteorder == "little" else "B"


def describe_tiff(data: bytes) -> str:
    """Return what a TIFF file holds, for messages."""
    tags, file = ImageFileDirectory_v2(data[:8]), io.BytesIO(data)
    file.seek(tags.next)
    tags.load(file)
    bits, kind = (next(iter(tags.get(tag) or ()), 1) for tag in (_BITS, _SAMPLE_FORMAT))
    numbers = {1: "unsigned", 2: "signed", 3: "floating-point"}.get(kind, "other")
    return f"TIFF with {tags.get(_SAMPLES, 1)} channels of {bits} bits, {numbers} numbers"


def is_deep_grey(image: ImageFile.ImageFile) -> bool:
    """Return whether a file, whose header was read, has one channel of more than 8 bits."""
    return image.mode in _WHITE_LEVELS


def is_deep_colour(image: ImageFile.ImageFile) -> bool:
    """Return whether a file, whose header was read, has 16 bits of each colour, or of grey and opacity."""
    match image:
        case PngImageFile():
            return image.tile[0].args in _PNG_MODES
        case PpmImageFile(mode="RGB"):
            args = image.tile[0].args
            return isinstance(args, tuple) and len(args) == 2 and args[1] > 255
        case TiffImageFile(mode="RGB" | "RGBA"):
            is_premultiplied = _PREMULTIPLIED in image.tag_v2.get(_EXTRA_SAMPLES, ())
            return image.tag_v2.get(_BITS, (8,))[0] == 16 and not is_premultiplied
    return False


def load_deep_colour(image: ImageFile.ImageFile, again: ImageFile.ImageFile) -> Samples:
    """Decode the samples of a file with `is_deep_colour`; `again` is the same file, opened a second time.

    Pillow has no mode for them. It reads the high bytes of either byte order, and so the low bytes of the other one.
    (Of grey with opacity, it reads the four bytes as one pixel.)
    """
    if isinstance(image, PpmImageFile):
        values = _ppm_samples(image)
    elif image.tile[0].args == "LA;16B":
        values = _pixels(image, ["RGBA"]).view(">u2").astype(np.uint16)
    else:
        high, low = _pixels(image, _raw_modes(image)), _pixels(again, _raw_modes(again, low=True))
        values = high.astype(np.uint16) << 8 | low
    has_opacity = values.shape[2] in (2, 4)
    colours = values[:, :, : values.shape[2] - has_opacity]
    return Samples(colours, 65535.0, values[:, :, -1] if has_opacity else _opacity(image, colours))


def load_grey(image: ImageFile.ImageFile) -> Samples:
    """Decode the samples of a file with `is_deep_grey`: 16 or 32 bits, or floating-point numbers."""
    values, white = np.asarray(image)[:, :, np.newaxis], _WHITE_LEVELS[image.mode]
    if (
        isinstance(image, TiffImageFile)
        and image.tag_v2.get(_PHOTOMETRIC) == _WHITE_IS_ZERO
        and values.dtype.kind == "u"
    ):
        values = np.iinfo(values.dtype).max - values  # Pillow does so for 8 bits
    return Samples(values, white, _opacity(image, values))


def _opacity(image: ImageFile.ImageFile, values: Num[np.ndarray, "y x c"]) -> UInt16[np.ndarray, "y x"] | None:
    """Return 0 where a pixel has the one colour that is transparent, 65535 elsewhere; None without such a colour."""
    transparent = image.info.get("transparency")
    return None if transparent is None else (values != transparent).any(axis=2) * np.uint16(65535)


def _raw_modes(image: ImageFile.ImageFile, *, low: bool = False) -> list[str]:
    """Return the names under which Pillow unpacks the high or the low bytes of each tile, such as RGB;16B."""
    names = [str(tile.args if isinstance(tile.args, str) else (tile.args or ("",))[0]) for tile in image.tile]
    order = "B"
    if isinstance(image, TiffImageFile):
        order = "L" if image.tag_v2.prefix == b"II" else "B"
        if image.tile[0].codec_name == "libtiff":  # which gives the high bytes alone of separate planes
            order, low = _NATIVE, low and image.tag_v2.get(_PLANAR) != _SEPARATE
    order = {"L": "B", "B": "L"}[order] if low else order
    return [f"{name.partition(';')[0]};16{order}" for name in names]


def _pixels(image: ImageFile.ImageFile, raw_modes: list[str]) -> UInt8[np.ndarray, "y x c"]:
    """Return the pixels of a file whose tiles are unpacked under these names."""
    image.tile = [
        tile._replace(args=raw_mode if isinstance(tile.args, str) else (raw_mode, *(tile.args or ())[1:]))
        for tile, raw_mode in zip(image.tile, raw_modes, strict=True)
    ]
    return np.array(image)


def _ppm_samples(image: ImageFile.ImageFile) -> UInt16[np.ndarray, "y x 3"]:
    """Return the samples of a binary PPM file, where its own maximum is 65535."""
    tile, file, shape = image.tile[0], image.fp, (image.height, image.width, 3)
    white = int((tile.args or "")[1])
    if file is None:
        raise ValueError("the file is closed")
    file.seek(tile.offset)
    samples = np.frombuffer(file.read(2 * math.prod(shape)), ">u2").reshape(shape)
    return (samples.clip(0, white) * (65535 / white)).astype(np.uint16)
