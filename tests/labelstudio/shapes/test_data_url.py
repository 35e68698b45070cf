import base64
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from tests.builders.masks import drawing, mask_of
from walkcut.errors import BrushError
from walkcut.labelstudio.shapes import bitmask, brush, data_url

MASK = mask_of("..##", ".#..")
SIZE = MASK.shape

# As canvases of Chromium write them: the pixels (1, 1) and (2, 1) of 4 × 3, and a disc of radius 2 on 6 × 6.
PIXELS_OF_CANVAS = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAQAAAADCAYAAAC09K7GAAAAIUlEQVR4AVzIsREAAAjCwOj+OysUNOQuzS9V4OSe"
    "wAg8DwAA///lZ1/VAAAABklEQVQDADDdAgdvSsKNAAAAAElFTkSuQmCC"
)
DISC_OF_CANVAS = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAYAAAAGCAYAAADgzO9IAAAARklEQVR4AXSL0QnAIAwFQ6dpN+oQOo1LuJGO411A"
    "8Efx8XI58sTlbfHiC7GpCIUwoEZsOcXP4vzJXvRzy5ysmMBHKrHlWAAAAP//MGxiHQAAAAZJREFUAwC2ZgfJb9ghaQAAAABJRU5ErkJggg=="
)


def url_of(data: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(data).decode()


def png(pixels: np.ndarray, mode: str | None = None) -> str:
    file = io.BytesIO()
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(file, "PNG")
    return url_of(file.getvalue())


def rgba(alpha: np.ndarray, colour: int = 0) -> str:
    pixels = np.full((*alpha.shape, 4), colour, np.uint8)
    pixels[..., 3] = alpha
    return png(pixels)


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def made_png(width: int, height: int, pixels: bytes) -> str:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0))
    return url_of(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b""))


def test_a_browser_shows_black_on_transparent() -> None:
    data = base64.b64decode(data_url.encode(MASK).removeprefix("data:image/png;base64,"))
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))
    assert pixels.tolist() == [[[0, 0, 0, 255 * inside] for inside in row] for row in MASK.astype(int).tolist()]


def test_alpha_is_read_whatever_the_colour() -> None:
    alpha = np.array([[0, 1, 127, 128], [255, 0, 0, 0]], np.uint8)
    for colour in (0, 255):
        url = rgba(alpha, colour)
        assert data_url.decode(url, SIZE).tolist() == alpha.tolist()
        assert bitmask.decode({"imageDataURL": url}, SIZE).tolist() == (alpha > 0).tolist()
        assert brush.decode({"maskDataURL": url}, SIZE).tolist() == (alpha >= 128).tolist()


def test_a_bitmask_as_the_editor_writes_it() -> None:
    assert drawing(bitmask.decode({"imageDataURL": PIXELS_OF_CANVAS}, (3, 4))) == ["....", ".##.", "...."]


def test_the_soft_rim_of_a_stroke_is_inside_a_bitmask_and_by_half_in_a_brush() -> None:
    assert drawing(bitmask.decode({"imageDataURL": DISC_OF_CANVAS}, (6, 6))) == [
        "......", ".###..", "#####.", "#####.", "#####.", ".###..",
    ]  # fmt: skip
    assert drawing(brush.decode({"maskDataURL": DISC_OF_CANVAS}, (6, 6))) == [
        "......", "......", ".###..", "#####.", ".###..", "......",
    ]  # fmt: skip


@pytest.mark.parametrize("mode", ["L", "RGB", "1", "P", "I;16"])
def test_an_image_without_transparency_is_inside_everywhere(mode: str) -> None:
    pixels = np.zeros(SIZE, np.uint16 if mode == "I;16" else np.uint8)
    url = png(pixels, None if mode == "I;16" else mode)
    assert data_url.decode(url, SIZE).tolist() == np.full(SIZE, 255).tolist()


def test_pixels_are_not_decoded_where_the_size_is_wrong() -> None:
    with pytest.raises(BrushError, match="a mask's image has 60000×60000 pixels, not 4×2 as the labelled image"):
        data_url.decode(made_png(60000, 60000, b""), SIZE)


def test_no_more_is_decompressed_than_the_image_holds() -> None:
    assert not data_url.decode(made_png(4, 2, bytes(1 << 26)), SIZE).any()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (None, "needs to be a PNG in a data URL that begins with data:image/png;base64,"),
        ("https://example.org/mask.png", "needs to be a PNG in a data URL"),
        ("data:image/svg+xml;base64,PHN2Zz4=", "needs to be a PNG in a data URL"),
        ("data:image/png;base64,", "holds no complete base64 code of a PNG"),
        ("data:image/png;base64,§§§§", "holds no complete base64 code"),
        ("data:image/png;base64,iVBO", "holds no complete base64 code"),
        (url_of(b"GIF89a" + bytes(40)), "a mask's data URL holds no PNG"),
        (made_png(4, 2, b"\0"), "a mask's PNG is damaged"),
        (url_of(base64.b64decode(rgba(np.zeros(SIZE)).partition(",")[2])[:40]), "a mask's PNG is damaged"),
    ],
)
def test_anything_but_a_png_of_the_size_is_refused(url: object, message: str) -> None:
    with pytest.raises(BrushError, match=message):
        data_url.decode(url, SIZE)
