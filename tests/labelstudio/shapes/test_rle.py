from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from label_studio_sdk.converter.brush import decode_rle, encode_rle, mask2rle

from walkcut.errors import BrushError
from walkcut.labelstudio.shapes import rle

masks = arrays.arrays(np.bool_, arrays.array_shapes(min_dims=2, max_dims=2, max_side=40))

# A mask of width 6 and height 4, inside at rows 1-2 and columns 2-4, as Label Studio's SDK codes it.
KNOWN = [0, 0, 0, 96, 57, 27, 254, 31, 0, 183, 255, 108, 2, 223, 254, 27, 0, 0]


def known_mask() -> np.ndarray:
    mask = np.zeros((4, 6), bool)
    mask[1:3, 2:5] = True
    return mask


def test_a_known_mask() -> None:
    assert rle.encode(known_mask()) == KNOWN
    assert rle.decode(KNOWN, (4, 6)).tolist() == known_mask().tolist()


@given(masks)
def test_the_round_trip_keeps_every_pixel(mask: np.ndarray) -> None:
    decoded = rle.decode(rle.encode(mask), mask.shape)
    assert decoded.dtype == np.bool_
    assert decoded.tolist() == mask.tolist()


@given(masks)
def test_the_sdk_writes_the_same_bytes_and_reads_ours(mask: np.ndarray) -> None:
    code = rle.encode(mask)
    assert code == list(mask2rle(mask.astype(np.uint8) * 255))
    assert (decode_rle(code).reshape(*mask.shape, 4) == mask[..., None] * np.uint8(255)).all()


@pytest.mark.parametrize("length", [*range(1, 6), 63, 64, 65, 16383, 16384, 16385, 40000])
def test_runs_around_every_size_class(length: int) -> None:
    mask = np.zeros((3, length), bool)
    mask[1] = True
    assert rle.encode(mask) == list(mask2rle(mask.astype(np.uint8) * 255))
    assert rle.decode(rle.encode(mask), mask.shape).tolist() == mask.tolist()


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.uint16])
def test_integers_mean_inside_where_they_are_not_zero(dtype: type) -> None:
    assert rle.encode(known_mask().astype(dtype) * 7) == KNOWN


def test_soft_edges_are_inside_from_one_half() -> None:
    grey = np.array([[0, 127, 128, 255]], np.uint8)
    assert rle.decode(encode_rle(np.repeat(grey.ravel(), 4)), (1, 4)).tolist() == [[False, False, True, True]]


def literal(values: list[int]) -> list[int]:
    """One literal item, as the browser writes them where runs do not pay."""
    length = len(values) - 1
    bits = f"{len(values):032b}" + "00111" + "0010" + "0011" + "0111" + "1111" + "0" + "10" + f"{length:08b}"
    bits += "".join(f"{value:08b}" for value in values)
    bits += "0" * (-len(bits) % 8)
    return [int(bits[place : place + 8], 2) for place in range(0, len(bits), 8)]


def test_literals_are_read() -> None:
    alphas = [255, 0, 0, 255, 255]
    code = literal([value for alpha in alphas for value in (1, 2, 3, alpha)])
    assert rle.decode(code, (1, 5)).tolist() == [[True, False, False, True, True]]


@pytest.mark.parametrize(
    "mask", [np.zeros((2, 2)), np.zeros(4, bool), np.zeros((0, 3), bool)], ids=["floats", "a row", "empty"]
)
def test_what_is_no_mask_is_refused(mask: np.ndarray) -> None:
    with pytest.raises(BrushError, match="two dimensions of booleans or integers"):
        rle.encode(mask)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ([], "at least 7 bytes"),
        ([True] * 9, "at least 7 bytes"),
        ([0, 0, 0, 96, 57, 27, 256, 0, 0], "it holds 0 to 256"),
        ([0, 0, 0, 95, *KNOWN[4:]], "holds 95 values of 8 bits; a mask of 6×4 pixels needs 96"),
        ([0, 0, 0, 96, 1, *KNOWN[5:]], "holds 96 values of 1 bits"),
        (KNOWN[:-6], "cut off"),
        ([0, 0, 0, 96, 57, 27, 254, 31, 0, 159, 255, 108, 2, 223, 254, 27, 0, 0], "more than the 96 values"),
    ],
)
def test_codes_out_of_the_format_are_refused(code: list[int], message: str) -> None:
    with pytest.raises(BrushError, match=message):
        rle.decode(code, (4, 6))


def test_a_code_for_a_image_turned_round_cannot_be_told_but_another_size_can() -> None:
    with pytest.raises(BrushError, match="pass the size of the image it was made for"):
        rle.decode(KNOWN, (4, 7))


@given(st.binary(min_size=0, max_size=60))
def test_any_bytes_are_a_mask_or_an_error_of_ours(data: bytes) -> None:
    code = [0, 0, 0, 96, 57, 27, 254, *data]
    with suppress(BrushError):
        assert rle.decode(code, (4, 6)).shape == (4, 6)


@pytest.mark.parametrize(
    ("pixels", "lengths"),
    [("#", [0, 1]), (".", [1]), ("..##.", [2, 2, 1]), ("##.#", [0, 2, 1, 1])],
)
def test_runs_alternate_and_begin_outside(pixels: str, lengths: list[int]) -> None:
    assert rle.run_lengths(np.array([pixel == "#" for pixel in pixels])).tolist() == lengths


@given(masks)
def test_a_mask_is_restored_from_its_runs(mask: np.ndarray) -> None:
    restored = rle.mask_from_runs(rle.run_lengths(mask.ravel()), mask.shape)
    assert restored.dtype == np.bool_
    assert restored.tolist() == mask.tolist()
