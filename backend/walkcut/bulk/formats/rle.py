"""COCO's compressed run lengths, without a loop over pixels or runs.

A mask is read column by column; the lengths of its runs, outside first, are written in base 32: from the fourth on as
the difference to the last but one, five bits a character, lowest first, a sixth bit where more follow, plus 48
(`rleToString` of the COCO API, `common/maskApi.c`).
"""

import numpy as np
from jaxtyping import Bool, Int64

from walkcut.labelstudio.runs import run_lengths

_BITS = 5
_MORE = 1 << _BITS
_SIGN = _MORE >> 1
_FIRST = 48
_CHARACTERS = 8  # hold 40 bits: an image has fewer than 2³⁹ pixels


def encode(mask: Bool[np.ndarray, "y x"]) -> str:
    """`counts` of a mask, the same as `pycocotools.mask.encode` gives."""
    return compress(run_lengths(mask.T.ravel()))


def compress(lengths: Int64[np.ndarray, " n"]) -> str:
    """Run lengths as COCO's string."""
    numbers = lengths.copy()
    numbers[3:] -= lengths[1:-2]
    rest = numbers[:, None] >> (_BITS * np.arange(_CHARACTERS))
    digits = rest & (_MORE - 1)
    # The rest beyond a digit says no more than the digit's own sign bit: the number ends here.
    ends = (rest >> _BITS) == -((digits & _SIGN) // _SIGN)
    length = ends.argmax(1, keepdims=True)
    place = np.arange(_CHARACTERS)
    characters = digits + np.where(place < length, _MORE, 0) + _FIRST
    return characters[place <= length].astype(np.uint8).tobytes().decode("ascii")
