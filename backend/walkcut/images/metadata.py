"""Files without the metadata that decide nothing about the pixels: browsers show an image whose metadata are odd."""

import struct
import zlib
from collections.abc import Iterator
from typing import Final

_PNG_SIGNATURE: Final = 8  # bytes
_PNG_COLOUR_TYPE: Final = 25  # place of the byte
_TRANSPARENCY_LENGTHS: Final = {0: range(2, 3), 2: range(6, 7), 3: range(1, 257)}  # by colour type; no others have it
_PNG_TRANSPARENCY, _PNG_EXIF, _PNG_DATA, _PNG_END = b"tRNS", b"eXIf", b"IDAT", b"IEND"
_JPEG_SCAN: Final = 0xDA
_JPEG_APPLICATION: Final = range(0xE0, 0xF0)
_JPEG_COMMENT: Final = 0xFE
_JPEG_KEPT: Final = {0xE0: (b"JFIF\0", 14), 0xE1: (b"Exif\0\0", 6), 0xEE: (b"Adobe", 12)}  # start and least length


def strip_png(data: bytes) -> bytes:
    """Return a PNG of its critical chunks, transparency and EXIF data ahead of the pixels only.

    As in browsers, other chunks may be damaged or large, and those two are dropped if their checksum is wrong, the
    transparency also if its length is.
    """
    return data[:_PNG_SIGNATURE] + b"".join(_png_chunks(data))


def _png_chunks(data: bytes) -> Iterator[bytes]:
    position, has_pixels = _PNG_SIGNATURE, False
    lengths = _TRANSPARENCY_LENGTHS.get(data[_PNG_COLOUR_TYPE], ()) if len(data) > _PNG_COLOUR_TYPE else ()
    while position + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if name[:1].isupper():  # critical (PNG, section 5.4): one that is cut off tells that the file is
            yield data[position:end]
        elif (name == _PNG_TRANSPARENCY and length in lengths) or (name == _PNG_EXIF and not has_pixels):
            checksum = zlib.crc32(data[position + 4 : end - 4]).to_bytes(4, "big")
            if data[end - 4 : end] == checksum:
                yield data[position:end]
        if name == _PNG_END:
            return
        position, has_pixels = end, has_pixels or name == _PNG_DATA


def strip_jpeg(data: bytes) -> bytes:
    """Return a JPEG without comments and application data, but for those that tell its colours and its orientation."""
    return data[:2] + b"".join(_jpeg_segments(data))


def _jpeg_segments(data: bytes) -> Iterator[bytes]:
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker, length = data[position + 1], int.from_bytes(data[position + 2 : position + 4], "big")
        if marker == 0xFF:  # padding
            position += 1
            continue
        if marker == _JPEG_SCAN or length < 2:
            break
        body = data[position + 4 : position + 2 + length]
        start, least = _JPEG_KEPT.get(marker, (b"", 1 << 16))
        is_metadata = marker in _JPEG_APPLICATION or marker == _JPEG_COMMENT
        if not is_metadata or (body.startswith(start) and len(body) >= least):
            yield data[position : position + 2 + length]
        position += 2 + length
    yield data[position:]
