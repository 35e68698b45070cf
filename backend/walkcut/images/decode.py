"""Bytes of an image -> upright RGB array, with the size and orientation that the annotator's browser shows."""

import io
import struct
import zlib
from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Float, Num, UInt8
from PIL import ExifTags, Image, ImageFile
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from walkcut.errors import ImageDecodeError
from walkcut.images.formats import decoded_format, other_format

# The raster formats that people label, see `walkcut.images.formats`. Pillow reads many more, but most of its
# vulnerabilities were in those (FITS, PSD, JPEG 2000), and EPS starts another program. Of the PPM family, only the
# binary formats: Pillow parses plain text number by number, which takes minutes for a large image.
_READERS: Final[dict[str, type[ImageFile.ImageFile]]] = {
    "JPEG": JpegImageFile,
    "PNG": PngImageFile,
    "WEBP": WebPImageFile,
    "GIF": GifImageFile,
    "BMP": BmpImageFile,
    "TIFF": TiffImageFile,
    "PPM": PpmImageFile,
    "AVIF": AvifImageFile,
}

IMAGE_SUFFIXES: Final = frozenset(
    (
        ".jpg",
        ".jpeg",
        ".jfif",
        ".png",
        ".webp",
        ".avif",
        ".gif",
        ".bmp",
        ".tif",
        ".tiff",
        ".ppm",
        ".pgm",
        ".pbm",
        ".pfm",
    )
)

_JPEG_SCAN: Final = b"\xff\xda"  # start of a scan; never occurs within a scan's data
_MAX_SCANNED_PIXELS: Final = 10**10  # over all scans of a JPEG: about ten seconds
_TILE_SIDES: Final = (322, 323)  # TileWidth and TileLength of TIFF 6.0
_MAX_TILE_PIXELS: Final = 1 << 24

# The errors of Pillow on damaged data; the fuzz tests fail on any other. DecompressionBombWarning is for programs
# that turn warnings into errors: GIF and TIFF check their frames and tiles against Pillow's own limit too.
DECODE_ERRORS: Final = (
    *(OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, ArithmeticError, RuntimeError, MemoryError),
    *(struct.error, zlib.error, Image.DecompressionBombError, Image.DecompressionBombWarning),
)

_TRANSPOSE: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_COLOUR_MODES: Final = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"})
_WHITE_LEVELS: Final = {"I;16": 65535.0, "I;16B": 65535.0, "I;16L": 65535.0, "I": 65535.0, "F": 1.0}


@dataclass(frozen=True)
class DecodeLimits:
    """Accepted image sizes: at most `max_pixels` in all, and at least `min_side` pixels on each side."""

    max_pixels: int = 100_000_000
    min_side: int = 16


def decode(data: bytes, limits: DecodeLimits) -> UInt8[np.ndarray, "y x 3"]:
    """Decode the first frame of an image to upright RGB.

    The size in the header is checked before any pixel is decoded. Transparent parts are composited over white, as on
    Label Studio's page, so that the colours hidden beneath have no effect. Deep greys: see `_to_8_bits`. Raises
    `ImageDecodeError` for other formats than JPEG, PNG, WebP, AVIF, GIF, BMP, TIFF and binary PPM, and for data that
    are damaged or beyond `limits`.

    >>> file = io.BytesIO()
    >>> Image.new("RGBA", (40, 30), (0, 0, 0, 0)).save(file, "PNG")
    >>> image = decode(file.getvalue(), DecodeLimits())
    >>> image.shape, int(image.min())
    ((30, 40, 3), 255)
    """
    if not data:
        raise ImageDecodeError("the image is empty (0 bytes). Upload the file again.")
    try:
        image = _open(data)
        _check_size(image.size, limits)
        _check_cost(image, data)
        orientation = _orientation(image)
        image.load()
        upright = image.transpose(_TRANSPOSE[orientation]) if orientation in _TRANSPOSE else image
    except DECODE_ERRORS as error:
        raise ImageDecodeError(
            f"the image ({len(data)} bytes) is damaged: {str(error) or type(error).__name__}. "
            "Open it in an image editor, save it and upload it again."
        ) from error
    return _rgb(upright)


def _open(data: bytes) -> ImageFile.ImageFile:
    """Read an image's header.

    `Image.open` would check the size against a limit of the whole process, which cannot be changed for one thread
    only. Its readers do not, so `DecodeLimits` alone decides.
    """
    reader = _READERS.get(decoded_format(data))
    if reader is not None:
        return reader(io.BytesIO(data))
    name = f" ({other_format(data)})" if other_format(data) else ""
    raise ImageDecodeError(
        f"{len(data)} bytes that begin with {data[:16]!r}{name} are not in a supported image format. Convert it to one "
        f"of {', '.join(_READERS)}, and check in a browser that the URL leads to the image itself and not to a page "
        "about it."
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
            f"the image has {width} x {height} pixels, too small to segment: "
            f"each side needs at least {limits.min_side}. Label a larger image."
        )


def _check_cost(image: ImageFile.ImageFile, data: bytes) -> None:
    """Refuse files that cost far more to decode than their pixels do: a progressive JPEG may pass over all pixels for
    every 30 bytes, and a TIFF may declare tiles larger than the image, each of which is held in memory."""
    pixels = image.width * image.height
    if isinstance(image, JpegImageFile) and data.count(_JPEG_SCAN) * pixels > _MAX_SCANNED_PIXELS:
        raise ImageDecodeError(
            f"the image is a JPEG of {data.count(_JPEG_SCAN)} scans, far more than any camera or program writes. "
            "Save it again in an image editor."
        )
    if isinstance(image, TiffImageFile):
        width, length = (image.tag_v2.get(side) for side in _TILE_SIDES)
        if isinstance(width, int) and isinstance(length, int) and width * length > max(pixels, _MAX_TILE_PIXELS):
            raise ImageDecodeError(
                f"the image is a TIFF of {image.width} x {image.height} pixels in tiles of {width} x {length}. "
                "Save it again in an image editor."
            )


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation (1 to 8) that the browser applies; 1, upright, if there is none or it is damaged.

    Masks must have the browser's size. Chromium 156 rotates JPEG and PNG, by EXIF data ahead of the pixels, and AVIF by
    its own rotation and mirroring, which Pillow passes on as EXIF data. `ImageOps.exif_transpose` also applies the EXIF
    data of WebP, XMP, and EXIF data at the end of a PNG. (Browsers show no TIFF; Pillow rotates it while decoding.)
    """
    if not isinstance(image, JpegImageFile | PngImageFile | AvifImageFile):
        return 1
    exif = Image.Exif()
    try:
        exif.load(image.info.get("exif", b""))
        orientation = exif.get(ExifTags.Base.Orientation)
    except DECODE_ERRORS:
        return 1
    return orientation if isinstance(orientation, int) else 1


def _rgb(image: Image.Image) -> UInt8[np.ndarray, "y x 3"]:
    if image.mode in _WHITE_LEVELS:
        grey = _to_8_bits(np.asarray(image), _WHITE_LEVELS[image.mode])
        return np.repeat(grey[:, :, np.newaxis], 3, axis=2)
    if image.mode not in _COLOUR_MODES:
        raise ImageDecodeError(f"the image has the colour mode {image.mode}. Convert it to RGB or grey.")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.new("RGB", image.size, "white")
        image.paste(rgba, mask=rgba)
    return np.array(image.convert("RGB"))


def _to_8_bits(values: Num[np.ndarray, "y x"], white: float) -> UInt8[np.ndarray, "y x"]:
    """Map greys to 0 … 255: black is 0 and `white` is 255, as browsers show 16 bits (values / 257).

    If values leave [0, white] or span less than a quarter of it, their minimum and maximum become 0 and 255 instead:
    10 or 12 bits of a microscope or scanner in a 16-bit file are nearly black in a browser, and annotators raise the
    brightness, so the segmentation needs the contrast. NaN and -inf count as the minimum, inf as the maximum.
    """
    greys: Float[np.ndarray, "y x"] = values.astype(np.float32 if values.dtype.itemsize == 2 else np.float64)
    finite = greys[np.isfinite(greys)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    greys = np.clip(np.where(np.isnan(greys), low, greys), low, high)
    is_within = low >= 0 and high <= white
    if is_within and (high == low or high - low >= white / 4):
        low, high = 0.0, white
    return ((greys - low) * (255 / ((high - low) or 1)) + 0.5).astype(np.uint8)
