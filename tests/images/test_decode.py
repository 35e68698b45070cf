import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from jaxtyping import UInt8
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from walkcut.errors import ImageDecodeError
from walkcut.images import DecodeLimits, decode

LIMITS = DecodeLimits(max_pixels=1_000_000)
ORIENTATION = 0x0112
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


def noise(height: int = 18, width: int = 24) -> UInt8[np.ndarray, "y x 3"]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def plain(mode: str, colour: Any) -> Image.Image:
    return Image.new(mode, (16, 17), colour)


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[ORIENTATION] = orientation
    return tags


def png_header(width: int, height: int) -> bytes:
    """A PNG that ends where its pixels should begin."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    header = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return header + struct.pack(">I", 1000) + b"IDAT"


@pytest.mark.parametrize(
    ("kind", "options"),
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
def test_lossless_formats_come_back_exactly(kind: str, options: dict[str, Any]) -> None:
    assert np.array_equal(decode(encode(Image.fromarray(noise()), kind, **options), LIMITS), noise())


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "GIF", "MPO"])
def test_lossy_formats_come_back_nearly(kind: str) -> None:
    steps = np.linspace(0, 255, 24, dtype=np.uint8)
    image = np.broadcast_to(steps[None, :, None], (18, 24, 3))
    more = {"save_all": True, "append_images": [plain("RGB", "red").resize((24, 18))]} if kind == "MPO" else {}
    found = decode(encode(Image.fromarray(image.copy()), kind, **more), LIMITS)
    assert np.abs(found.astype(int) - image).max() < 12


UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
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


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_exif_orientation_is_applied(kind: str, orientation: int) -> None:
    stored = np.kron(np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]]), np.ones((16, 24, 1)))
    data = encode(Image.fromarray(stored.astype(np.uint8)), kind, exif=exif(orientation))
    found, expected = decode(data, LIMITS), UPRIGHT[orientation](stored)
    assert found.shape == expected.shape
    assert np.array_equal(found > 127, expected > 127)


def late_exif_png() -> bytes:
    """A PNG whose EXIF stands behind its pixels."""
    chunk = b"eXIf" + exif(6).tobytes()[6:]
    data = encode(Image.fromarray(noise()), "PNG")
    return data[:-12] + struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[-12:]


def xmp_png() -> bytes:
    text = PngInfo()
    text.add_itxt("XML:com.adobe.xmp", XMP.decode())
    return encode(Image.fromarray(noise()), "PNG", pnginfo=text)


@pytest.mark.parametrize(
    "data",
    [
        encode(Image.fromarray(noise()), "WEBP", lossless=True, exif=exif(6)),
        encode(Image.fromarray(noise()), "JPEG", xmp=XMP),
        xmp_png(),
        late_exif_png(),
    ],
    ids=["webp", "jpeg-xmp", "png-xmp", "png-late"],
)
def test_orientation_that_browsers_ignore_is_ignored(data: bytes) -> None:
    """The sizes that Chromium 156 gave for images made in this way."""
    assert decode(data, LIMITS).shape == (18, 24, 3)


@pytest.mark.parametrize("damage", [b"Exif\0\0", b"Exif\0\0MM\0*\0\0", b"Exif\0\0nonsense nonsense"])
def test_a_image_with_damaged_exif_is_still_a_image(damage: bytes) -> None:
    assert decode(encode(Image.fromarray(noise()), "JPEG", exif=damage), LIMITS).shape == (18, 24, 3)


def palette(*, transparency: int | bytes | None = None) -> bytes:
    image = plain("P", 1)
    image.putpalette([255, 0, 0, 10, 20, 30])
    return encode(image, "PNG", **({} if transparency is None else {"transparency": transparency}))


@pytest.mark.parametrize(
    ("data", "colour"),
    [
        (encode(plain("1", 1), "PNG"), (255, 255, 255)),
        (encode(plain("L", 77), "PNG"), (77, 77, 77)),
        (encode(plain("L", 77), "PNG", transparency=77), (255, 255, 255)),
        (encode(plain("LA", (77, 0)), "PNG"), (255, 255, 255)),
        (encode(plain("LA", (55, 51)), "PNG"), (215, 215, 215)),
        (palette(), (10, 20, 30)),
        (palette(transparency=1), (255, 255, 255)),
        (palette(transparency=b"\xff\x00"), (255, 255, 255)),
        (palette(transparency=0), (10, 20, 30)),
        (encode(plain("RGB", (1, 2, 3)), "PNG", transparency=(1, 2, 3)), (255, 255, 255)),
        (encode(plain("RGBA", (200, 100, 0, 0)), "PNG"), (255, 255, 255)),
        (encode(plain("RGBA", (200, 100, 0, 255)), "WEBP", lossless=True), (200, 100, 0)),
        (encode(plain("RGBA", (0, 255, 55, 51)), "TIFF"), (204, 255, 215)),
        (encode(plain("CMYK", (0, 255, 255, 0)), "TIFF"), (255, 0, 0)),
        (encode(plain("YCbCr", (255, 128, 128)), "TIFF"), (255, 255, 255)),
    ],
)
def test_modes_and_transparency_over_white(data: bytes, colour: tuple[int, int, int]) -> None:
    found = decode(data, LIMITS)
    assert found.shape == (17, 16, 3)
    assert np.array_equal(found, np.broadcast_to(colour, (17, 16, 3)))


def test_cmyk_jpeg_is_not_inverted() -> None:
    found = decode(encode(plain("CMYK", (0, 255, 255, 0)), "JPEG"), LIMITS)
    assert np.abs(found.astype(int) - [255, 0, 0]).max() < 12


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "PNG", "WEBP"])
def test_the_first_frame_counts(kind: str) -> None:
    frames = [plain("RGB", "white"), plain("RGB", "black")]
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:])
    assert decode(data, LIMITS).min() == 255


def deep(values: list[float], dtype: str, kind: str = "TIFF") -> UInt8[np.ndarray, "n"]:
    """Decode an image whose top left pixels hold the values, and the others the last one."""
    pixels = np.full((16, 16), values[-1], dtype)
    pixels[0, : len(values)] = values
    found = decode(encode(Image.fromarray(pixels), kind), LIMITS)
    assert np.array_equal(found[..., 0], found[..., 1])
    assert np.array_equal(found[..., 0], found[..., 2])
    return found[0, : len(values), 0]


@pytest.mark.parametrize(
    ("dtype", "kind", "values", "expected"),
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
def test_deep_greys(dtype: str, kind: str, values: list[float], expected: list[int]) -> None:
    assert deep(values, dtype, kind).tolist() == expected


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html>", "begin with b'<!DOCTYPE html>.*JPEG, PNG, WEBP, GIF, BMP, TIFF, PPM"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", "no image that walkcut reads"),
        (b"P3\n16 16\n255\n" + b"0 " * 768, "no image that walkcut reads"),
        (b"RIFF\x10\0\0\0WAVEfmt ", "damaged"),
        (encode(Image.fromarray(noise()), "PNG")[:-60], "damaged: .*truncated.*save it and upload it again"),
        (encode(plain("RGB", 0).resize((15, 99)), "PNG"), "15 x 99 pixels.*each side needs at least 16"),
        (encode(plain("RGB", 0).resize((1001, 1000)), "GIF"), "1001 x 1000 = 1001000.*WALKCUT_MAX_PIXELS"),
        (encode(plain("LAB", 0), "TIFF"), "colour mode LAB. Convert"),
    ],
)
def test_what_is_no_image_is_refused_with_a_remedy(data: bytes, message: str) -> None:
    with pytest.raises(ImageDecodeError, match=f"(?s){message}"):
        decode(data, LIMITS)


@pytest.mark.parametrize(
    ("width", "height", "message"),
    [
        (20_000, 10_000, "20000 x 10000 = 200000000 pixels, more than 100000000"),
        (9_500, 10_000, "truncated"),  # above the limit at which Pillow itself warns: passed on to the decoder
    ],
)
def test_the_header_is_held_against_our_limit_only(width: int, height: int, message: str) -> None:
    with pytest.raises(ImageDecodeError, match=message):
        decode(png_header(width, height), DecodeLimits())


def test_pillows_own_bomb_error_is_ours() -> None:
    data = bytearray(encode(plain("RGB", 0), "WEBP", lossless=True, exif=exif(1)))
    data[24:30] = b"\xff\xff\x00\xff\xff\x00"  # canvas of 65536 x 65536
    with pytest.raises(ImageDecodeError, match="damaged"):
        decode(bytes(data), DecodeLimits())
