"""Bytes of an image -> upright RGB array, of the size and the way up that the annotator's browser shows."""

import io
import struct
import zlib
from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Float, Num, UInt8
from PIL import ExifTags, Image, ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from walkcut.errors import ImageDecodeError

# The raster formats that people label, with how their files begin. Pillow reads many more, but most of its holes lay
# in those (FITS, PSD, JPEG 2000), and EPS starts another program. Of the PPM family only the binary members: Pillow
# reads plain text number by number, minutes for a large image.
_READERS: Final[dict[type[ImageFile.ImageFile], tuple[bytes, ...]]] = {
    JpegImageFile: (b"\xff\xd8\xff",),
    PngImageFile: (b"\x89PNG\r\n\x1a\n",),
    WebPImageFile: (b"RIFF",),
    GifImageFile: (b"GIF87a", b"GIF89a"),
    BmpImageFile: (b"BM",),
    TiffImageFile: (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    PpmImageFile: (b"P4", b"P5", b"P6", b"Pf"),
}

_JPEG_SCAN: Final = b"\xff\xda"  # what begins one; never within a scan's own data
_MOST_SCANNED: Final = 10**10  # pixels, in all scans of a JPEG: some ten seconds
_TILE_SIDES: Final = (322, 323)  # TileWidth and TileLength of TIFF 6.0
_LARGEST_TILE: Final = 1 << 24  # pixels

# What Pillow raises on damaged data; the fuzz tests fail on any other. DecompressionBombWarning is there for programs
# that turn warnings into errors: GIF and TIFF check their frames and tiles against Pillow's own limit too.
_DECODE_ERRORS: Final = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    ArithmeticError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)

_UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_COLOUR_MODES: Final = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"})
_WHITE_OF_DEEP_MODE: Final = {"I;16": 65535.0, "I;16B": 65535.0, "I;16L": 65535.0, "I": 65535.0, "F": 1.0}


@dataclass(frozen=True)
class DecodeLimits:
    """The sizes of images that are taken: pixels in all, and the shorter side in pixels."""

    max_pixels: int = 100_000_000
    min_side: int = 16


def decode(data: bytes, limits: DecodeLimits) -> UInt8[np.ndarray, "y x 3"]:
    """Decode the first frame of an image to upright RGB.

    The size in the header is checked before any pixel is decoded. Transparent parts are laid over white, as on
    Label Studio's page, so that colours hidden under them do not count. Greys deeper than 8 bits: see `_to_8_bits`.

    Raises:
        ImageDecodeError: the data is no JPEG, PNG, WebP, GIF, BMP, TIFF or binary PPM, is damaged, or beyond `limits`.
    """
    if not data:
        raise ImageDecodeError("the image is empty (0 bytes). Upload the file again.")
    try:
        image = _load(data, limits)
    except _DECODE_ERRORS as error:
        raise ImageDecodeError(
            f"the image ({len(data)} bytes) is damaged: {str(error) or type(error).__name__}. "
            "Open it in an image editor, save it anew and upload that."
        ) from error
    return _rgb(image)


def _load(data: bytes, limits: DecodeLimits) -> Image.Image:
    """Decode an image upright, in its own mode, after a look at its header."""
    image = _open(data)
    _check_size(image.size, limits)
    _check_cost(image, data)
    orientation = _orientation(image)
    image.load()
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _open(data: bytes) -> ImageFile.ImageFile:
    """Read an image's header.

    Not by `Image.open`: it holds every image against one limit of the whole process, warning or raising, which
    could be moved or silenced for all threads only. Its readers do not, so that `DecodeLimits` alone decides.
    """
    for reader, signatures in _READERS.items():
        if data.startswith(signatures):
            return reader(io.BytesIO(data))
    formats = ", ".join(str(reader.format) for reader in _READERS)
    raise ImageDecodeError(
        f"{len(data)} bytes that begin with {data[:16]!r} are no image that walkcut reads. Convert it to one of "
        f"{formats}, and see in a browser that the address gives the image itself and not a page about it."
    )


def _check_size(size: tuple[int, int], limits: DecodeLimits) -> None:
    width, height = size
    if width * height > limits.max_pixels:
        raise ImageDecodeError(
            f"the image has {width} x {height} = {width * height} pixels, more than {limits.max_pixels}. "
            "Scale it down, or raise WALKCUT_MAX_PIXELS."
        )
    if min(width, height) < limits.min_side:
        raise ImageDecodeError(
            f"the image has {width} x {height} pixels, too few to segment: "
            f"each side needs {limits.min_side} at least. Label a larger image."
        )


def _check_cost(image: ImageFile.ImageFile, data: bytes) -> None:
    """Refuse files whose decoding costs far more than their pixels: a progressive JPEG may go over all of them once for
    every 30 bytes, and a TIFF name tiles larger than itself, of which each is held whole."""
    pixels = image.width * image.height
    if isinstance(image, JpegImageFile) and data.count(_JPEG_SCAN) * pixels > _MOST_SCANNED:
        raise ImageDecodeError(
            f"the image is a JPEG of {data.count(_JPEG_SCAN)} scans, far more than any camera or program writes. "
            "Save it anew in an image editor."
        )
    if isinstance(image, TiffImageFile):
        width, length = (image.tag_v2.get(side) for side in _TILE_SIDES)
        if isinstance(width, int) and isinstance(length, int) and width * length > max(pixels, _LARGEST_TILE):
            raise ImageDecodeError(
                f"the image is a TIFF of {image.width} x {image.height} pixels in tiles of {width} x {length}. "
                "Save it anew in an image editor."
            )


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation (1 to 8) that the browser applies; 1, upright, where there is none that can be read.

    Masks must have the browser's size, and Chromium 156 was seen to turn JPEG and PNG only, by EXIF ahead of the
    pixels, while `ImageOps.exif_transpose` also heeds WebP's EXIF, XMP and EXIF at a PNG's end. (Browsers show no
    TIFF; Pillow turns it as it decodes.)
    """
    if not isinstance(image, JpegImageFile | PngImageFile):
        return 1
    exif = Image.Exif()
    try:
        exif.load(image.info.get("exif", b""))
        orientation = exif.get(ExifTags.Base.Orientation)
    except _DECODE_ERRORS:
        return 1
    return orientation if isinstance(orientation, int) else 1


def _rgb(image: Image.Image) -> UInt8[np.ndarray, "y x 3"]:
    if image.mode in _WHITE_OF_DEEP_MODE:
        grey = _to_8_bits(np.asarray(image), _WHITE_OF_DEEP_MODE[image.mode])
        return np.repeat(grey[:, :, np.newaxis], 3, axis=2)
    if image.mode not in _COLOUR_MODES:
        raise ImageDecodeError(f"the image's colours are of mode {image.mode}. Convert it to RGB or grey.")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.new("RGB", image.size, "white")
        image.paste(rgba, mask=rgba)
    return np.array(image.convert("RGB"))


def _to_8_bits(values: Num[np.ndarray, "y x"], white: float) -> UInt8[np.ndarray, "y x"]:
    """Map greys to 0 … 255: black is 0 and `white` 255, as browsers show 16 bits (values / 257).

    But where values leave [0, white], or span less than a quarter of it, their least and greatest become 0 and 255:
    10 or 12 bits of a microscope or scanner in a 16-bit file are nearly black in a browser, and annotators turn the
    brightness up, so contrast is what the segmentation needs. NaN and -inf count as the least, inf as the greatest.
    """
    wide: Float[np.ndarray, "y x"] = values.astype(np.float32 if values.dtype.itemsize == 2 else np.float64)
    finite = wide[np.isfinite(wide)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    wide = np.clip(np.where(np.isnan(wide), low, wide), low, high)
    within = low >= 0 and high <= white
    if within and (high == low or high - low >= white / 4):
        low, high = 0.0, white
    return ((wide - low) * (255 / ((high - low) or 1)) + 0.5).astype(np.uint8)
