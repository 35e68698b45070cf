"""Bytes of an image -> upright RGB array, with the size and orientation that the annotator's browser shows."""

import codecs
import io
import re
import struct
import zlib
from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import UInt8
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
from walkcut.images.deep import describe_tiff, is_deep_colour, is_deep_grey, load_deep_colour, load_grey
from walkcut.images.formats import decoded_format, other_format
from walkcut.images.levels import Samples, to_rgb
from walkcut.images.metadata import strip_jpeg, strip_png

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

_STRIPPED: Final = {"PNG": strip_png, "JPEG": strip_jpeg}

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

_UNSUPPORTED: Final = re.compile("unknown|unsupported|cannot handle", re.IGNORECASE)  # in Pillow's messages

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


@dataclass(frozen=True)
class DecodeLimits:
    """Accepted image sizes: at most `max_pixels` in all, and at least `min_side` pixels on each side."""

    max_pixels: int = 100_000_000
    min_side: int = 16


def decode(data: bytes, limits: DecodeLimits) -> UInt8[np.ndarray, "y x 3"]:
    """Decode the first frame of an image to upright RGB.

    The size in the header is checked before any pixel is decoded. Transparent parts are composited over white, as on
    Label Studio's page, so that the colours hidden beneath have no effect. More than 8 bits: see `levels.to_8_bits`.
    Raises `ImageDecodeError` for data that are damaged, beyond `limits`, or not JPEG, PNG, WebP, AVIF, GIF, BMP, TIFF
    or binary PPM.

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
        frame = _load(image, data)
    except DECODE_ERRORS as error:
        raise _unreadable(data, error) from error
    return _upright(_rgb(frame) if isinstance(frame, Image.Image) else to_rgb(frame), orientation)


def _open(data: bytes) -> ImageFile.ImageFile:
    """Read an image's header.

    `Image.open` would check the size against a limit of the whole process, which cannot be changed for one thread
    only. Its readers do not, so `DecodeLimits` alone decides.
    """
    name = decoded_format(data)
    if name:
        return _READERS[name](io.BytesIO(_STRIPPED.get(name, bytes)(data)))
    is_page = data.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"<")
    other = "" if is_page else other_format(data)
    kind = "of a page or a drawing (HTML, SVG)" if is_page else f"that begin with {data[:4]!r}"
    formats = ", ".join(_READERS).replace("PPM", "PPM (binary)")
    raise ImageDecodeError(
        f"{len(data)} bytes {kind}{f' ({other})' if other else ''} are not in a supported image format. Convert it to "
        f"one of {formats}, and check in a browser that the URL leads to the image itself and not to a page about it."
    )


def _unreadable(data: bytes, error: Exception) -> ImageDecodeError:
    reason = str(error) or type(error).__name__
    if not _UNSUPPORTED.match(reason):
        return ImageDecodeError(
            f"the image ({len(data)} bytes) is damaged: {reason}. "
            "Open it in an image editor, save it and upload it again."
        )
    samples = describe_tiff(data) if decoded_format(data) == "TIFF" else reason
    return ImageDecodeError(
        f"this kind of image is not supported ({len(data)} bytes; {samples}). "
        "Save it with one or three channels of 8 or 16 bits, for instance as a PNG."
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


def _load(image: ImageFile.ImageFile, data: bytes) -> Image.Image | Samples:
    if is_deep_colour(image):
        return load_deep_colour(image, _open(data))
    image.load()
    return load_grey(image) if is_deep_grey(image) else image


def _upright(pixels: UInt8[np.ndarray, "y x 3"], orientation: int) -> UInt8[np.ndarray, "h w 3"]:
    if orientation not in _TRANSPOSE:
        return pixels
    return np.array(Image.fromarray(pixels).transpose(_TRANSPOSE[orientation]))


def _rgb(image: Image.Image) -> UInt8[np.ndarray, "y x 3"]:
    if image.mode not in _COLOUR_MODES:
        raise ImageDecodeError(f"the image has the colour mode {image.mode}. Convert it to RGB or grey.")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.new("RGB", image.size, "white")
        image.paste(rgba, mask=rgba)
    return np.array(image.convert("RGB"))
