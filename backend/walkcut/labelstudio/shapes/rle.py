"""Run lengths of masks, and Label Studio's brush run-length code, without a loop over pixels.

The format is thi.ng/rle-pack over the RGBA values of a mask, the mask's value in all four channels: 32 bits with the
number of values, 5 bits with the word size less one, four times 4 bits with a run size less one, then items. An item
is a flag, 2 bits that choose a run size, a length less one in that many bits, and one value (a run, flag 1) or as many
values as the length says (a literal, flag 0).
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int64, Shaped

from walkcut.errors import BrushError

_CHANNELS = 4
_WORD_BITS = 8
_RUN_BITS = np.array([3, 4, 8, 16])
_MAX_RUN = 1 << 16
_HEADER_BITS = 53
_HEADER_BYTES = 7


def run_lengths(inside: Bool[np.ndarray, " n"]) -> Int64[np.ndarray, " r"]:
    """Return the lengths of the runs of a flat, non-empty mask: outside and inside in turn.

    The first run is outside, and of length 0 where the mask begins inside.

    >>> run_lengths(np.array([True, True, False, True])).tolist()
    [0, 2, 1, 1]
    """
    changes = np.flatnonzero(inside[1:] != inside[:-1]) + 1
    starts = np.concatenate([[0] * (1 + int(inside[0])), changes])
    return np.diff(starts, append=inside.size)


def mask_from_runs(lengths: Int64[np.ndarray, " r"], size: tuple[int, int]) -> Bool[np.ndarray, "y x"]:
    """Return the mask of `size` (height, width) whose `run_lengths`, row by row, these are."""
    return np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(size)


def encode(mask: Shaped[np.ndarray, "..."]) -> list[int]:
    """Encode a mask (booleans, or integers of which non-zero means inside) as the bytes of `value.rle`.

    The bytes equal those of `label_studio_sdk.converter.brush.mask2rle`. Raises `BrushError` for anything but a
    two-dimensional, non-empty mask of booleans or integers.

    >>> from walkcut.labelstudio.shapes import rle
    >>> rle.encode(np.array([[0, 1, 1]]))
    [0, 0, 0, 12, 57, 27, 252, 96, 19, 255, 128]
    """
    if mask.ndim != 2 or mask.size == 0 or mask.dtype.kind not in "biu":
        raise BrushError(
            f"a brush mask needs two dimensions of booleans or integers and at least one pixel, not {mask.dtype} of "
            f"shape {mask.shape}"
        )
    inside = mask.astype(np.bool_, copy=False).ravel()
    starts_inside = int(inside[0])
    runs = run_lengths(inside)[starts_inside:] * _CHANNELS
    pieces = -(-runs // _MAX_RUN)  # a run too long for any size is split, and all its pieces take the largest size
    lengths = np.full(int(pieces.sum()), _MAX_RUN)
    lengths[np.cumsum(pieces) - 1] = runs - (pieces - 1) * _MAX_RUN
    size_class = np.repeat(np.searchsorted(1 << _RUN_BITS[:-1], runs), pieces)
    values = np.repeat((np.arange(runs.size) + starts_inside) % 2 * 255, pieces)
    bits = _RUN_BITS[size_class]
    codes = ((((4 | size_class) << bits) | (lengths - 1)) << _WORD_BITS) | values
    header = np.array([inside.size * _CHANNELS, 0b00111_0010_0011_0111_1111])
    return _pack_bits(np.concatenate([header, codes]), np.concatenate([[32, 21], bits + 3 + _WORD_BITS]))


def decode(rle: Sequence[int], size: tuple[int, int]) -> Bool[np.ndarray, "y x"]:
    """Decode `value.rle` into a mask of `size` (height, width); alpha values from 128 are inside.

    Raises `BrushError` for a code that is cut off, holds anything but bytes, or belongs to another size.

    >>> from walkcut.labelstudio.shapes import rle
    >>> rle.decode([0, 0, 0, 12, 57, 27, 252, 96, 19, 255, 128], (1, 3))
    array([[False,  True,  True]])
    """
    data = _as_bytes(rle)
    expected = size[0] * size[1] * _CHANNELS
    header = int.from_bytes(data[:_HEADER_BYTES], "big") >> (8 * _HEADER_BYTES - _HEADER_BITS)
    count, word_bits = header >> 21, (header >> 16 & 31) + 1
    if (count, word_bits) != (expected, _WORD_BITS):
        raise BrushError(
            f"the run-length code holds {count} values of {word_bits} bits; a mask of {size[1]}×{size[0]} pixels needs "
            f"{expected} of {_WORD_BITS}: pass the size of the image it was made for"
        )
    lengths, positions, is_run = _parse_items(data, [(header >> shift & 15) + 1 for shift in (12, 8, 4, 0)], expected)
    values = np.where(is_run, 1, lengths)  # of each item
    nth = np.arange(int(values.sum())) - np.repeat(np.cumsum(values) - values, values)
    leading_bits = np.unpackbits(np.frombuffer(data, np.uint8))[np.repeat(positions, values) + nth * _WORD_BITS]
    repeats = np.repeat(np.where(is_run, lengths, 1), values)
    pixels = np.diff(np.cumsum(repeats) // _CHANNELS, prepend=0)  # a pixel's mask is its last value, alpha
    return np.repeat(leading_bits == 1, pixels).reshape(size)


def _pack_bits(codes: Int64[np.ndarray, " n"], bits: Int64[np.ndarray, " n"]) -> list[int]:
    """Pack bit strings (at most 32 bits each) one after the other, most significant bit first, into zero-padded bytes.

    As in the SDK, a string that ends on a byte gets a byte of padding.
    """
    table = np.unpackbits((codes << (32 - bits)).astype(">u4").view(np.uint8)).reshape(-1, 32)
    stream = table[np.arange(32) < bits[:, None]]
    packed: list[int] = np.packbits(np.append(stream, 0)).tolist()
    return packed


def _as_bytes(rle: Sequence[int]) -> bytes:
    values = np.asarray(rle)
    if values.ndim != 1 or values.dtype.kind not in "iu" or values.size < _HEADER_BYTES:
        raise BrushError("a run-length code is a list of at least 7 bytes, as Label Studio writes it in value.rle")
    if values.min() < 0 or values.max() > 255:
        raise BrushError(f"a run-length code is a list of bytes; it holds {values.min()} to {values.max()}")
    return values.astype(np.uint8).tobytes()


def _parse_items(
    data: bytes, run_bits: Sequence[int], expected: int
) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """Return each item's length, the bit position of its first value, and whether it is a run, up to `expected` values.

    An item begins where the one before ends: this is the codec's one loop.
    """
    lengths, positions, is_run = [], [], []
    at, values, stop = _HEADER_BITS, 0, len(data) * 8
    padded = data + bytes(4)
    while values < expected:
        window = int.from_bytes(padded[at >> 3 : (at >> 3) + 4], "big") << (at & 7)
        bits = run_bits[(window >> 29) & 3]
        length = ((window >> (29 - bits)) & ((1 << bits) - 1)) + 1
        run = bool((window >> 31) & 1)
        lengths.append(length)
        is_run.append(run)
        positions.append(at + 3 + bits)
        values += length
        at += 3 + bits + (1 if run else length) * _WORD_BITS
        if at > stop:
            raise BrushError(f"the run-length code is cut off: {expected} values were announced")
    if values > expected:
        raise BrushError(f"the run-length code holds more than the {expected} values that its header names")
    return np.array(lengths), np.array(positions), np.array(is_run)
