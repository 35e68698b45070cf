import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tifffile
from jaxtyping import UInt8
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.builders.image_files import encode_image, exif
from walkcut.errors import ImageDecodeError
from walkcut.images import DecodeLimits, decode

LIMITS = DecodeLimits(max_pixels=1_000_000)
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


def noise(height: int = 18, width: int = 24) -> UInt8[np.ndarray, "y x 3"]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def plain(mode: str, colour: Any) -> Image.Image:
    return Image.new(mode, (16, 17), colour)


def png_header(width: int, height: int) -> bytes:
    """Return a PNG that ends before its pixels."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    header = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return header + struct.pack(">I", 1000) + b"IDAT"


@pytest.mark.parametrize(
    ("image_format", "options"),
    [
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("BMP", {}),
        ("PPM", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "tiff_adobe_deflate"}),
    ],
)
def test_lossless_formats_come_back_exactly(image_format: str, options: dict[str, Any]) -> None:
    assert np.array_equal(decode(encode_image(Image.fromarray(noise()), image_format, **options), LIMITS), noise())


@pytest.mark.parametrize("image_format", ["JPEG", "WEBP", "GIF", "MPO", "AVIF"])
def test_lossy_formats_come_back_approximately(image_format: str) -> None:
    steps = np.linspace(0, 255, 24, dtype=np.uint8)
    image = np.broadcast_to(steps[None, :, None], (18, 24, 3))
    more = {"save_all": True, "append_images": [plain("RGB", "red").resize((24, 18))]} if image_format == "MPO" else {}
    decoded = decode(encode_image(Image.fromarray(image.copy()), image_format, **more), LIMITS)
    assert np.abs(decoded.astype(int) - image).max() < 12


ROTATED: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: np.rot90,
    9: lambda a: a,
}


@pytest.mark.parametrize("orientation", ROTATED)
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "TIFF", "AVIF"])
def test_exif_orientation_is_applied(image_format: str, orientation: int) -> None:
    stored = np.kron(np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]]), np.ones((16, 24, 1)))
    data = encode_image(Image.fromarray(stored.astype(np.uint8)), image_format, exif=exif(orientation))
    decoded, expected = decode(data, LIMITS), ROTATED[orientation](stored)
    assert decoded.shape == expected.shape
    assert np.array_equal(decoded > 127, expected > 127)


def late_exif_png() -> bytes:
    """Return a PNG with its EXIF data after its pixels."""
    chunk = b"eXIf" + exif(6).tobytes()[6:]
    data = encode_image(Image.fromarray(noise()), "PNG")
    return data[:-12] + struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[-12:]


def xmp_png() -> bytes:
    text = PngInfo()
    text.add_itxt("XML:com.adobe.xmp", XMP.decode())
    return encode_image(Image.fromarray(noise()), "PNG", pnginfo=text)


@pytest.mark.parametrize(
    "data",
    [
        encode_image(Image.fromarray(noise()), "WEBP", lossless=True, exif=exif(6)),
        encode_image(Image.fromarray(noise()), "JPEG", xmp=XMP),
        xmp_png(),
        late_exif_png(),
    ],
    ids=["webp", "jpeg-xmp", "png-xmp", "png-late"],
)
def test_orientation_that_browsers_ignore_is_ignored(data: bytes) -> None:
    """Chromium 156 shows these images in these sizes."""
    assert decode(data, LIMITS).shape == (18, 24, 3)


@pytest.mark.parametrize("damage", [b"Exif\0\0", b"Exif\0\0MM\0*\0\0", b"Exif\0\0nonsense nonsense"])
def test_damaged_exif_is_ignored(damage: bytes) -> None:
    assert decode(encode_image(Image.fromarray(noise()), "JPEG", exif=damage), LIMITS).shape == (18, 24, 3)


def palette(*, transparency: int | bytes | None = None) -> bytes:
    image = plain("P", 1)
    image.putpalette([255, 0, 0, 10, 20, 30])
    return encode_image(image, "PNG", **({} if transparency is None else {"transparency": transparency}))


@pytest.mark.parametrize(
    ("data", "colour"),
    [
        (encode_image(plain("1", 1), "PNG"), (255, 255, 255)),
        (encode_image(plain("L", 77), "PNG"), (77, 77, 77)),
        (encode_image(plain("L", 77), "PNG", transparency=77), (255, 255, 255)),
        (encode_image(plain("LA", (77, 0)), "PNG"), (255, 255, 255)),
        (encode_image(plain("LA", (55, 51)), "PNG"), (215, 215, 215)),
        (palette(), (10, 20, 30)),
        (palette(transparency=1), (255, 255, 255)),
        (palette(transparency=b"\xff\x00"), (255, 255, 255)),
        (palette(transparency=0), (10, 20, 30)),
        (encode_image(plain("RGB", (1, 2, 3)), "PNG", transparency=(1, 2, 3)), (255, 255, 255)),
        (encode_image(plain("RGBA", (200, 100, 0, 0)), "PNG"), (255, 255, 255)),
        (encode_image(plain("RGBA", (200, 100, 0, 255)), "WEBP", lossless=True), (200, 100, 0)),
        (encode_image(plain("RGBA", (0, 255, 55, 51)), "TIFF"), (204, 255, 215)),
        (encode_image(plain("CMYK", (0, 255, 255, 0)), "TIFF"), (255, 0, 0)),
        (encode_image(plain("YCbCr", (255, 128, 128)), "TIFF"), (255, 255, 255)),
    ],
)
def test_modes_and_transparency_over_white(data: bytes, colour: tuple[int, int, int]) -> None:
    decoded = decode(data, LIMITS)
    assert decoded.shape == (17, 16, 3)
    assert np.array_equal(decoded, np.broadcast_to(colour, (17, 16, 3)))


def test_cmyk_jpeg_is_not_inverted() -> None:
    decoded = decode(encode_image(plain("CMYK", (0, 255, 255, 0)), "JPEG"), LIMITS)
    assert np.abs(decoded.astype(int) - [255, 0, 0]).max() < 12


@pytest.mark.parametrize("image_format", ["GIF", "TIFF", "PNG", "WEBP"])
def test_the_first_frame_is_decoded(image_format: str) -> None:
    frames = [plain("RGB", "white"), plain("RGB", "black")]
    data = encode_image(frames[0], image_format, save_all=True, append_images=frames[1:])
    assert decode(data, LIMITS).min() == 255


def deep(values: list[float], dtype: str, image_format: str = "TIFF") -> UInt8[np.ndarray, "n"]:
    """Decode an image with the values in its top left pixels and the last one in the others."""
    pixels = np.full((16, 16), values[-1], dtype)
    pixels[0, : len(values)] = values
    decoded = decode(encode_image(Image.fromarray(pixels), image_format), LIMITS)
    assert np.array_equal(decoded[..., 0], decoded[..., 1])
    assert np.array_equal(decoded[..., 0], decoded[..., 2])
    return decoded[0, : len(values), 0]


@pytest.mark.parametrize(
    ("dtype", "image_format", "values", "expected"),
    [
        ("<u2", "PNG", [0, 257, 25700, 65535], [0, 1, 100, 255]),  # the whole range: as browsers show it
        ("<u2", "TIFF", [0, 257, 25700, 65535], [0, 1, 100, 255]),
        (">u2", "TIFF", [0, 257, 25700, 65535], [0, 1, 100, 255]),
        ("<u2", "PPM", [0, 257, 25700, 65535], [0, 1, 100, 255]),
        ("<i4", "TIFF", [0, 257, 25700, 65535], [0, 1, 100, 255]),
        ("<u2", "PNG", [0, 1638, 4095], [0, 102, 255]),  # 12 bits
        ("<u2", "PNG", [1000, 1051, 1255], [0, 51, 255]),
        ("<u2", "PNG", [25700, 25700], [100, 100]),  # flat
        ("<i4", "TIFF", [-(2**31), 0, 2**31 - 1], [0, 128, 255]),
        ("<i4", "TIFF", [10**9, 10**9 + 1, 10**9 + 5], [0, 51, 255]),
        ("<i4", "TIFF", [-5, -5], [0, 0]),
        ("<f4", "TIFF", [0, 0.2, 1], [0, 51, 255]),
        ("<f4", "TIFF", [-3, -2, 2], [0, 51, 255]),
        ("<f4", "TIFF", [np.nan, -np.inf, np.inf, 0, 1], [0, 0, 255, 0, 255]),
        ("<f4", "TIFF", [np.nan, np.nan], [0, 0]),
    ],
)
def test_deep_greys(dtype: str, image_format: str, values: list[float], expected: list[int]) -> None:
    assert deep(values, dtype, image_format).tolist() == expected


def test_a_deep_tiff_whose_zero_is_white_is_turned_over() -> None:
    values = np.tile(np.array([0, 257, 25700, 65535], "<u2"), (16, 4))
    turned = encode_image(Image.fromarray(65535 - values), "TIFF")
    tag = b"\x06\x01\x03\0\1\0\0\0"  # the photometric interpretation
    zero_is_white = turned.replace(tag + b"\1", tag + b"\0")
    assert zero_is_white != turned
    assert np.array_equal(decode(zero_is_white, LIMITS), decode(encode_image(Image.fromarray(values), "TIFF"), LIMITS))


def chunk(name: bytes, content: bytes, *, checksum: bytes = b"") -> bytes:
    checksum = checksum or struct.pack(">I", zlib.crc32(name + content))
    return struct.pack(">I", len(content)) + name + content + checksum


@pytest.mark.parametrize(
    "extra",
    [
        chunk(b"tEXt", b"Comment\0abc", checksum=b"\0\0\0\0"),
        chunk(b"gAMA", b"\0\0\xb1\x8f", checksum=b"abcd"),
        chunk(b"pHYs", b"", checksum=b"abcd"),
        chunk(b"tRNS", b"\0\1\0\2", checksum=b"abcd"),
        chunk(b"tRNS", b"\0\1"),
        chunk(b"tRNS", bytes(300)),
        chunk(b"eXIf", exif(6).tobytes()[6:], checksum=b"abcd"),
        chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(4_000_000))),
        chunk(b"iTXt", b"Comment\0\1\0\0\0" + zlib.compress(bytes(4_000_000))),
        chunk(b"zTXt", b"Comment\0\0junk"),
        chunk(b"iCCP", b"profile\0\7junk"),
        chunk(b"acTL", b""),
        chunk(b"eXIf", b"junk"),
        chunk(b"abCd", bytes(2_000_000)),
    ],
)
@pytest.mark.parametrize("place", [33, -12])
def test_odd_metadata_of_a_png_are_ignored(extra: bytes, place: int) -> None:
    data = encode_image(Image.fromarray(noise()), "PNG")
    assert np.array_equal(decode(data[:place] + extra + data[place:], LIMITS), noise())


def test_what_follows_the_end_of_a_png_is_ignored() -> None:
    data = encode_image(Image.fromarray(noise()), "PNG")
    assert np.array_equal(decode(data + b"trailing", LIMITS), noise())
    assert np.array_equal(decode(data[:-12] + struct.pack(">I", 9999) + b"tEXtcut off", LIMITS), noise())


@pytest.mark.parametrize(
    ("marker", "content"),
    [
        (0xE0, b"JFIF\0"),
        (0xE0, b""),
        (0xE1, b"Exif\0\0junk"),
        (0xE1, b"http://ns.adobe.com/xap/1.0/\0<broken"),
        (0xE2, b"ICC_PROFILE\0"),
        (0xE2, b"MPF\0junk"),
        (0xED, b"Photoshop 3.0\x008BIM\x03\xed"),
        (0xEE, b"Adobe"),
        (0xEF, b""),
        (0xFE, b"\xff" * 2000),
    ],
)
def test_odd_metadata_of_a_jpeg_are_ignored(marker: int, content: bytes) -> None:
    data = encode_image(Image.fromarray(noise()), "JPEG")
    extra = struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content
    for odd in (data[:2] + extra + data[2:], data[:2] + b"\xff" + extra + data[2:]):
        assert np.array_equal(decode(odd, LIMITS), decode(data, LIMITS))


def tiff(values: np.ndarray, **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, values, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (tiff(np.zeros((20, 30), np.float64)), "1 channels of 64 bits, floating-point"),
        (tiff(np.zeros((20, 30, 3), np.float32), photometric="rgb"), "3 channels of 32 bits, floating-point"),
        (tiff(np.zeros((20, 30, 3), np.int16), photometric="rgb"), "3 channels of 16 bits, signed"),
        (tiff(np.zeros((20, 30, 5), np.uint16), photometric="minisblack", planarconfig="contig"), "5 channels of 16"),
    ],
)
def test_unsupported_kinds_are_not_called_damaged(data: bytes, message: str) -> None:
    with pytest.raises(ImageDecodeError, match=f"is not supported .*{message}.*Save it with one or three channels"):
        decode(data, LIMITS)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (
            b"<!DOCTYPE html><html>",
            "bytes of a page or a drawing .HTML, SVG. are not in.*JPEG, PNG, WEBP, GIF, BMP, TIFF, PPM",
        ),
        (b"%!PS-Adobe-3.0 EPSF-3.0", "not in a supported image format"),
        (b"P3\n16 16\n255\n" + b"0 " * 768, r"\(plain-text PPM\) are not in a supported .* PPM \(binary\)"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", r"\(Git LFS pointer\) are not in a supported"),
        (b"\xef\xbb\xbf<?xml version='1.0'?><svg/>", r"bytes of a page or a drawing \(HTML, SVG\) are not"),
        (b"\xef\xbb\xbf<html>", r"bytes of a page or a drawing \(HTML, SVG\) are not"),
        (b"RIFF\x10\0\0\0WAVEfmt ", "not in a supported image format"),
        (b"RIFF\x10\0\0\0WEBPVP8 ", "damaged"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", r"begin with b'.*' \(HEIC\) are not in a supported image format"),
        (encode_image(Image.fromarray(noise()), "PNG")[:-60], "damaged: .*truncated.*save it and upload it again"),
        (encode_image(plain("RGB", 0).resize((15, 99)), "PNG"), "15 x 99 pixels.*each side needs at least 16"),
        (encode_image(plain("RGB", 0).resize((1001, 1000)), "GIF"), "1001 x 1000 = 1001000.*WALKCUT_MAX_PIXELS"),
        (encode_image(plain("LAB", 0), "TIFF"), "colour mode LAB. Convert"),
    ],
)
def test_bad_images_are_refused_with_a_remedy(data: bytes, message: str) -> None:
    with pytest.raises(ImageDecodeError, match=f"(?s){message}"):
        decode(data, LIMITS)


@pytest.mark.parametrize(
    ("width", "height", "message"),
    [
        (20_000, 10_000, "20000 x 10000 = 200000000 pixels, more than 100000000"),
        (9_500, 10_000, "truncated"),  # Pillow's own limit is lower: the decoder gets it
    ],
)
def test_the_header_is_checked_against_the_given_limit_only(width: int, height: int, message: str) -> None:
    with pytest.raises(ImageDecodeError, match=message):
        decode(png_header(width, height), DecodeLimits())


def test_pillows_bomb_error_is_an_image_decode_error() -> None:
    data = bytearray(encode_image(plain("RGB", 0), "WEBP", lossless=True, exif=exif(1)))
    data[24:30] = b"\xff\xff\x00\xff\xff\x00"  # canvas of 65536 x 65536
    with pytest.raises(ImageDecodeError, match="damaged"):
        decode(bytes(data), DecodeLimits())
