"""Label Studio's brush run-length code, without a loop over pixels.

The format is thi.ng/rle-pack over the RGBA values of a mask, the mask's value in all four channels: 32 bits with the
number of values, 5 bits with the word size less one, four times 4 bits with a run size less one, then items. An item
is a flag, 2 bits that choose a run size, a length less one in that many bits, and one value (a run, flag 1) or as many
values as the length says (a literal, flag 0).
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int64, Shaped, UInt8

from walkcut.errors import BrushError
from walkcut.labelstudio.runs import run_lengths

_CHANNELS = 4
_WORD_BITS = 8
_RUN_BITS = np.array([3, 4, 8, 16])
_MAX_RUN = 1 << 16
_HEADER_WIDTHS = np.array([32, 5, 4, 4, 4, 4])
_HEADER_AT = np.cumsum(_HEADER_WIDTHS) - _HEADER_WIDTHS
_HEADER_BITS = 53


def encode(mask: Shaped[np.ndarray, "..."]) -> list[int]:
    """Encode a mask (booleans, or integers of which non-zero means inside) as the bytes of `value.rle`.

    The bytes equal those of `label_studio_sdk.converter.brush.mask2rle`. Raises `BrushError` for anything but a
    two-dimensional, non-empty mask of booleans or integers.

    >>> from walkcut.labelstudio import brush
    >>> brush.encode(np.array([[0, 1, 1]]))
    [0, 0, 0, 12, 57, 27, 252, 96, 19, 255, 128]
    """
    if mask.ndim != 2 or mask.size == 0 or mask.dtype.kind not in "biu":
        raise BrushError(
            f"a brush mask needs two dimensions of booleans or integers and at least one pixel, not {mask.dtype} of "
            f"shape {mask.shape}"
        )
    inside = np.ascontiguousarray(mask if mask.dtype == np.bool_ else mask != 0).ravel()
    lengths, size_class, values = _split_runs(inside)
    bits = _RUN_BITS[size_class]
    codes = ((((4 | size_class) << bits) | (lengths - 1)) << _WORD_BITS) | values
    header = np.array([inside.size * _CHANNELS, 0b00111_0010_0011_0111_1111])
    return _pack_bits(np.concatenate([header, codes]), np.concatenate([[32, 21], bits + 3 + _WORD_BITS]))


def decode(rle: Sequence[int], size: tuple[int, int]) -> Bool[np.ndarray, "y x"]:
    """Decode `value.rle` into a mask of `size` (height, width); alpha values from 128 are inside.

    Raises `BrushError` for a code that is cut off, holds anything but bytes, or belongs to another size.

    >>> from walkcut.labelstudio import brush
    >>> brush.decode([0, 0, 0, 12, 57, 27, 252, 96, 19, 255, 128], (1, 3))
    array([[False,  True,  True]])
    """
    data = _as_bytes(rle)
    expected = size[0] * size[1] * _CHANNELS
    count, word, *run_bits = _read_bits(data, _HEADER_AT, _HEADER_WIDTHS).tolist()
    if (count, word) != (expected, _WORD_BITS - 1):
        raise BrushError(
            f"the run-length code holds {count} values of {word + 1} bits; a mask of {size[1]}×{size[0]} pixels needs "
            f"{expected} of {_WORD_BITS}: pass the size of the image it was made for"
        )
    lengths, positions = _value_runs(data, [bits + 1 for bits in run_bits], expected)
    inside = _read_bits(data, positions, np.full(positions.size, _WORD_BITS)) >= 128
    pixels = np.diff(np.cumsum(lengths) // _CHANNELS, prepend=0)  # a pixel's mask is its last value, alpha
    return np.repeat(inside, pixels).reshape(size)


def _split_runs(
    inside: Bool[np.ndarray, " n"],
) -> tuple[Int64[np.ndarray, " r"], Int64[np.ndarray, " r"], Int64[np.ndarray, " r"]]:
    """Return the mask's runs: lengths in RGBA values, indices of run sizes, and values (0 or 255).

    A run too long for any size is split, and all its pieces take the largest size.
    """
    starts_inside = int(inside[0])
    lengths = run_lengths(inside)[starts_inside:] * _CHANNELS
    size_class = np.searchsorted(1 << _RUN_BITS[:-1], lengths)
    values = (np.arange(lengths.size) + starts_inside) % 2 * 255
    pieces = -(-lengths // _MAX_RUN)
    split = np.full(int(pieces.sum()), _MAX_RUN)
    split[np.cumsum(pieces) - 1] = lengths - (pieces - 1) * _MAX_RUN
    return split, np.repeat(size_class, pieces), np.repeat(values, pieces)


def _pack_bits(codes: Int64[np.ndarray, " n"], bits: Int64[np.ndarray, " n"]) -> list[int]:
    """Pack bit strings (at most 32 bits each) one after the other, most significant bit first, into zero-padded bytes.

    As in the SDK, a string that ends on a byte gets a byte of padding. Codes do not overlap: adding joins them.
    """
    ends = np.cumsum(bits)
    starts = ends - bits
    windows = codes << (40 - bits - (starts & 7))
    first = starts >> 3
    total = int(ends[-1] >> 3) + 1
    sums = np.zeros(total + 5)
    for byte in range(5):
        sums += np.bincount(first + byte, (windows >> (32 - 8 * byte)) & 255, total + 5)
    packed: list[int] = sums[:total].astype(np.uint8).tolist()
    return packed


def _as_bytes(rle: Sequence[int]) -> UInt8[np.ndarray, " b"]:
    """Return the code as bytes, with eight zeros appended so that 40-bit windows may reach beyond its end."""
    values = np.asarray(rle)
    if values.ndim != 1 or values.dtype.kind not in "iu" or values.size * 8 < _HEADER_BITS:
        raise BrushError("a run-length code is a list of at least 7 bytes, as Label Studio writes it in value.rle")
    if values.min() < 0 or values.max() > 255:
        raise BrushError(f"a run-length code is a list of bytes; it holds {values.min()} to {values.max()}")
    return np.concatenate([values.astype(np.uint8), np.zeros(8, np.uint8)])


def _read_bits(
    data: UInt8[np.ndarray, " b"], positions: Int64[np.ndarray, " n"], bits: Int64[np.ndarray, " n"]
) -> Int64[np.ndarray, " n"]:
    """Read unsigned numbers of `bits` (at most 32) at these bit positions."""
    first = positions >> 3
    window = np.zeros(positions.size, np.int64)
    for byte in range(5):
        window = (window << 8) | data[first + byte]
    return np.asarray((window >> (40 - bits - (positions & 7))) & ((1 << bits) - 1))


def _value_runs(
    data: UInt8[np.ndarray, " b"], run_bits: Sequence[int], expected: int
) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
    """Return how often each value is repeated, and the bit position of that value, in order."""
    lengths, positions, is_run = _parse_items(data.tobytes(), run_bits, expected)
    pieces = np.where(is_run, 1, lengths)
    nth = np.arange(int(pieces.sum())) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    return np.repeat(np.where(is_run, lengths, 1), pieces), np.repeat(positions, pieces) + nth * _WORD_BITS


def _parse_items(
    data: bytes, run_bits: Sequence[int], expected: int
) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """Return each item's length, the bit position of its first value, and whether it is a run, up to `expected` values.

    An item begins where the one before ends: this is the codec's one loop.
    """
    lengths, positions, is_run = [], [], []
    at, values, stop = _HEADER_BITS, 0, (len(data) - 8) * 8
    while values < expected:
        window = int.from_bytes(data[at >> 3 : (at >> 3) + 4], "big") << (at & 7)
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
