"""Fuzz tests of the image decoder."""

import numpy as np
import pytest
from hypothesis import strategies as st
from PIL import Image

from tests.builders.fuzzing import Parser, fuzz_tests, mutated
from tests.builders.image_files import encode_image, exif
from walkcut.errors import ImageDecodeError
from walkcut.images import DecodeLimits, decode

LIMITS = DecodeLimits(max_pixels=1_000_000)
IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8))
IMAGES = [
    encode_image(IMAGE, "JPEG", exif=exif(6)),
    encode_image(IMAGE.convert("L"), "JPEG", progressive=True),
    encode_image(IMAGE.convert("CMYK"), "JPEG", icc_profile=b"x" * 200),
    encode_image(IMAGE.convert("RGBA"), "PNG", exif=exif(5)),
    encode_image(IMAGE.convert("P"), "PNG", transparency=3),
    encode_image(IMAGE.convert("1"), "PNG"),
    encode_image(IMAGE, "WEBP", exif=exif(3)),
    encode_image(IMAGE, "AVIF", exif=exif(6)),
    encode_image(IMAGE.convert("RGBA"), "AVIF", save_all=True),
    encode_image(IMAGE.convert("RGBA"), "WEBP", lossless=True),
    encode_image(IMAGE, "WEBP", save_all=True, append_images=[IMAGE.rotate(90)]),
    encode_image(IMAGE.convert("P"), "GIF", transparency=2),
    encode_image(IMAGE.convert("L"), "GIF", save_all=True, append_images=[IMAGE.convert("L").rotate(90)]),
    encode_image(IMAGE, "BMP"),
    encode_image(IMAGE.convert("P"), "BMP"),
    encode_image(IMAGE, "TIFF", exif=exif(8)),
    encode_image(IMAGE.convert("F"), "TIFF"),
    encode_image(IMAGE.convert("P"), "TIFF", compression="packbits"),
    encode_image(IMAGE, "TIFF", compression="tiff_lzw"),
    encode_image(IMAGE.convert("L"), "TIFF", compression="jpeg"),
    encode_image(IMAGE, "PPM"),
    encode_image(IMAGE.convert("1"), "PPM"),
    encode_image(IMAGE.convert("F"), "PPM"),
]
SIGNATURES = [b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF", b"GIF89a", b"BM", b"II*\0", b"MM\0+", b"P5 ", b"Pf "]


def decode_image(data: bytes) -> None:
    image = decode(data, LIMITS)
    assert image.ndim == 3
    assert image.shape[2] == 3
    assert image.shape[0] * image.shape[1] <= LIMITS.max_pixels


@pytest.mark.parametrize("sample", IMAGES)
def test_samples_are_read(sample: bytes) -> None:
    """Otherwise the fuzz tests would find nothing."""
    decode_image(sample)


FORGED = st.tuples(st.sampled_from(SIGNATURES), st.binary()).map(b"".join)
PARSERS = [
    Parser("images", decode_image, mutated(IMAGES), (ImageDecodeError,), 1500),
    Parser("no images", decode_image, FORGED, (ImageDecodeError,)),
]
test_a_parser_gives_a_value_or_its_error, test_a_parser_gives_a_value_or_its_error_at_length = fuzz_tests(PARSERS)
