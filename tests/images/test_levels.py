"""Images of more than 8 bits: files of all kinds, and the range that holds the content."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Bool, UInt8
from PIL import Image

from tests.builders.image_files import encode_image
from tests.builders.scenes import quarters
from walkcut import load_segmenter, parse_granularity
from walkcut.images import DecodeLimits, decode

SHAPE = (90, 120)


def tiff(values: np.ndarray, **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, values, **options)
    return file.getvalue()


def png(values: np.ndarray, *, transparent: bytes = b"") -> bytes:
    """Return a PNG of 16 bits with 1 to 4 channels."""
    height, width, channels = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    chunks = [(b"IHDR", header), *([(b"tRNS", transparent)] if transparent else [])]
    chunks += [(b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    checked = (struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(checked)


def ppm(values: np.ndarray, white: int) -> bytes:
    return b"P6 %d %d %d\n" % (values.shape[1], values.shape[0], white) + values.astype(">u2").tobytes()


def shown(values: np.ndarray) -> np.ndarray:
    """Return 16 bits as browsers show them."""
    return (values / 257 + 0.5).astype(np.uint8)


def deep_noise(channels: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 65536, (18, 24, channels)).astype(np.uint16)


RGB = deep_noise(3)


@pytest.mark.parametrize(
    "data",
    [
        png(RGB),
        ppm(RGB, 65535),
        *(
            tiff(RGB, photometric="rgb", byteorder=order, compression=compression, tile=tile)
            for order in "<>"
            for compression in (None, "zlib")
            for tile in (None, (16, 16))
        ),
        *(tiff(RGB.transpose(2, 0, 1), photometric="rgb", planarconfig="separate", byteorder=order) for order in "<>"),
    ],
)
def test_colours_of_16_bits_are_shown_as_in_a_browser(data: bytes) -> None:
    assert np.array_equal(decode(data, DecodeLimits()), shown(RGB))


def test_the_low_bytes_of_dark_colours_count() -> None:
    dark = RGB // 4096 + 700  # 4 bits
    for data in (png(dark), ppm(dark, 65535), tiff(dark, photometric="rgb")):
        decoded = decode(data, DecodeLimits())
        assert np.array_equal(decoded, (dark - 700.0) * 17)


def test_a_ppm_file_tells_its_white() -> None:
    decoded = decode(ppm(RGB >> 4, 4095), DecodeLimits())
    assert np.abs(decoded - (RGB >> 4) * (255 / 4095)).max() <= 0.6


@pytest.mark.parametrize("channels", [2, 4])
def test_hidden_colours_have_no_effect(channels: int) -> None:
    values = deep_noise(channels) // 32  # 11 bits
    values[..., -1] = 65535
    values[:4, :, :-1], values[:4, :, -1] = 60000, 0
    decoded = decode(png(values), DecodeLimits())
    assert (decoded[:4] == 255).all()
    assert np.ptp(decoded[4:]) == 255
    assert np.median(decoded[4:]) == pytest.approx(127, abs=15)


def test_one_transparent_colour() -> None:
    grey = deep_noise(1)
    grey[:4] = 1000
    decoded = decode(png(grey, transparent=struct.pack(">H", 1000)), DecodeLimits())
    assert (decoded[:4] == 255).all()
    assert np.array_equal(decoded[4:, :, :1], shown(grey[4:]))
    rgb = np.repeat(grey, 3, axis=2)
    decoded = decode(png(rgb, transparent=struct.pack(">HHH", 1000, 1000, 1000)), DecodeLimits())
    assert (decoded[:4] == 255).all()


# Ranges. The scene is plain in 8 bits; a deep image of it must look the same outside of its odd places.

y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]


def full(image: np.ndarray) -> np.ndarray:
    """Stretch an image to 0 … 255."""
    return (image - image.min()) * 255.0 / np.ptp(image)


COLOUR = full(quarters(*SHAPE).astype(float))
GREY = full(COLOUR @ [0.3, 0.5, 0.2])
CORNER = x / SHAPE[1] + y / SHAPE[0] < 0.6
BORDER = (np.minimum(x, SHAPE[1] - 1 - x) < 12) | (np.minimum(y, SHAPE[0] - 1 - y) < 9)
BAR = (y >= 80) & (y < 84) & (x >= 70) & (x < 112)
NOWHERE = np.zeros(SHAPE, bool)
LOWEST = float(np.finfo(np.float32).min)


def some_pixels(fraction: float) -> np.ndarray:
    return np.random.default_rng(1).random(SHAPE) < fraction


DEEP: dict[str, tuple[str, float, float, list[tuple[np.ndarray, float]]]] = {  # type, gain, offset, odd places
    "12 bits": ("u2", 16, 0, []),
    "10 bits, offset": ("u2", 2.6, 150, []),
    "15 bits": ("u2", 128, 0, []),
    "low contrast": ("u2", 2, 30000, []),
    "hot pixel": ("u2", 2.6, 150, [((y == 40) & (x == 7), 65535)]),
    "hot pixels": ("u2", 2.6, 150, [(some_pixels(0.01), 65535)]),
    "hot column": ("u2", 4, 0, [(x == 50, 65535)]),
    "hot cluster": ("u2", 4, 0, [((abs(y - 30) < 2) & (abs(x - 50) < 2), 60000)]),
    "dead and hot pixels": ("u2", 3, 5000, [(some_pixels(0.004), 65535), (some_pixels(0.002), 0)]),
    "scale bar": ("u2", 16, 0, [(BAR, 65535)]),
    "scale bar in 10 bits": ("u2", 3, 20, [(BAR, 4095)]),
    "black border": ("u2", 8, 30000, [(BORDER, 0)]),
    "white border": ("u2", 16, 0, [(BORDER, 65535)]),
    "int16 no data": ("i2", 12, 0, [(CORNER, -32768)]),
    "int16 negative": ("i2", 12, -1000, [(CORNER, -32768)]),
    "int32 no data": ("i4", 12, 0, [(BORDER, -32768)]),
    "int32 lowest": ("i4", 12, 0, [(CORNER, -(2**31))]),
    "float no data": ("f4", 8, 400, [(CORNER, -9999)]),
    "reflectance": ("f4", 0.0015, 0.02, [(CORNER, -9999)]),
    "float lowest": ("f4", 8, 400, [(BORDER, LOWEST)]),
    "float largest": ("f4", 8, 400, [(some_pixels(0.05), -LOWEST)]),
    "not a number": ("f4", 8, 400, [(CORNER, np.nan)]),
    "scattered not a number": ("f4", 8, 400, [(some_pixels(0.4), np.nan)]),
    "infinite": ("f4", 8, 400, [(CORNER, -np.inf), (BAR, np.inf)]),
    "two kinds of no data": ("f4", 8, 400, [(CORNER, -9999), (BAR, -32768)]),
    "no data and hot pixels": ("f4", 8, 400, [(CORNER, -9999), (some_pixels(0.004), 1e6)]),
    "mostly no data": ("f4", 8, 400, [((abs(y - 45) > 22) | (abs(x - 60) > 30), -9999)]),
    "unit range": ("f4", 1 / 255, 0, [(CORNER, -1)]),
}


def made(kind: str, scene: np.ndarray) -> tuple[bytes, Bool[np.ndarray, "y x"]]:
    """Return a deep image of a scene, and where it shows the scene."""
    dtype, gain, offset, odd = DEEP[kind]
    values = (scene * gain + offset).astype(dtype)
    for place, value in odd:
        values[place] = value
    data = tiff(values) if scene.ndim == 2 else png(values)
    return data, ~np.logical_or.reduce([NOWHERE, *(place for place, _ in odd)])


def colour_kinds() -> list[str]:
    return [kind for kind, (dtype, *_) in DEEP.items() if dtype == "u2"]


@pytest.mark.parametrize(
    ("kind", "scene"),
    [*((kind, GREY) for kind in DEEP), *((kind, COLOUR) for kind in colour_kinds())],
)
def test_deep_images_look_like_the_plain_one(kind: str, scene: np.ndarray) -> None:
    data, is_scene = made(kind, scene)
    decoded = decode(data, DecodeLimits()).astype(float)
    expected = scene if scene.ndim == 3 else np.repeat(scene[..., None], 3, axis=2)
    assert np.abs(decoded - expected)[is_scene].max() < 20


@pytest.mark.parametrize(
    "kind", ["hot pixels", "scale bar", "black border", "float no data", "reflectance", "infinite"]
)
def test_masks_of_deep_images_are_those_of_the_plain_one(kind: str) -> None:
    data, is_scene = made(kind, GREY)
    segmenter = load_segmenter("classical", "merge")

    def labels(image: UInt8[np.ndarray, "y x 3"]) -> np.ndarray:
        return segmenter.segment(image).labels(parse_granularity("5"))[is_scene]

    plain = np.where(is_scene, GREY, 0)[..., None].repeat(3, axis=2).astype(np.uint8)
    found, expected = labels(decode(data, DecodeLimits())), labels(plain)
    for label in np.unique(expected):
        mask = expected == label
        if mask.mean() > 0.05:
            best = np.bincount(found[mask]).argmax()
            assert (mask & (found == best)).sum() / (mask | (found == best)).sum() > 0.9


def test_areas_that_are_left_out_do_not_merge_with_the_content() -> None:
    for kind, is_dark in (("float no data", True), ("scale bar", False)):
        data, is_scene = made(kind, GREY)
        decoded = decode(data, DecodeLimits())
        assert (decoded[~is_scene] == (0 if is_dark else 255)).all()
        assert (decoded[is_scene].min() if is_dark else 255 - decoded[is_scene].max()) >= 4


@pytest.mark.parametrize("levels", [(0, 200, 250), (0, 65535), (100, 110, 4000), (7, 8)])
def test_flat_colours_stay_apart(levels: tuple[int, ...]) -> None:
    parts = np.array(levels, np.uint16)[(x * len(levels)) // SHAPE[1]]
    decoded = decode(tiff(parts), DecodeLimits())
    assert len(np.unique(decoded)) == len(levels)


@given(
    st.sampled_from(["u2", "i2", "i4", "f4"]),
    st.lists(
        st.sampled_from([0, 1, -1, 7, 100, 4095, -9999, -32768, 65535, 2**31 - 1, LOWEST, np.inf, np.nan]), max_size=4
    ),
    st.floats(0, 30000),
    st.floats(0, 1),
    st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_any_values_are_decoded(dtype: str, odd: list[float], spread: float, fraction: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    values = random.normal(1000, spread, (20, 24))
    for value in odd:
        values[random.random((20, 24)) < fraction] = value
    limits = (np.iinfo(dtype).min, np.iinfo(dtype).max) if dtype != "f4" else (-np.inf, np.inf)
    cast = np.nan_to_num(values).clip(*limits) if dtype != "f4" else values
    decoded = decode(tiff(cast.astype(dtype)), DecodeLimits())
    assert decoded.shape == (20, 24, 3)


def test_eight_bits_stay_as_they_are() -> None:
    image = np.clip(COLOUR / 8 + 40, 0, 255).astype(np.uint8)
    assert np.array_equal(decode(encode_image(Image.fromarray(image), "PNG"), DecodeLimits()), image)
