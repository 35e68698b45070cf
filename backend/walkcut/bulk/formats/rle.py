"""COCO's compressed run lengths, without a loop over pixels or runs.

A mask is read column by column. The lengths of its runs, outside first, are written as numbers in base 32, five bits a
character, lowest first, with a sixth bit if more follow, plus 48; from the fourth on a number is the difference to the
length before the last (`rleToString` of the COCO API, `common/maskApi.c`).
"""

import numpy as np
from jaxtyping import Bool

from walkcut.labelstudio.shapes.rle import run_lengths

_BITS = 5
_MORE = 1 << _BITS
_SIGN = _MORE >> 1
_CHARACTER_OFFSET = 48
_CHARACTERS = 8  # hold 40 bits: an image has fewer than 2³⁹ pixels


def encode(mask: Bool[np.ndarray, "y x"]) -> str:
    """Return the `counts` of a mask, as `pycocotools.mask.encode`.

    >>> encode(np.array([[False, True, True]]))
    '12'
    """
    lengths = run_lengths(mask.T.ravel())
    numbers = lengths.copy()
    numbers[3:] -= lengths[1:-2]
    rest = numbers[:, None] >> (_BITS * np.arange(_CHARACTERS))
    digits = rest & (_MORE - 1)
    # A number ends where the rest beyond a digit only repeats the digit's sign bit.
    ends = (rest >> _BITS) == -((digits & _SIGN) // _SIGN)
    length = ends.argmax(1, keepdims=True)
    position = np.arange(_CHARACTERS)
    characters = digits + np.where(position < length, _MORE, 0) + _CHARACTER_OFFSET
    return characters[position <= length].astype(np.uint8).tobytes().decode("ascii")
