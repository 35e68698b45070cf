"""Run lengths of a mask: what the brush codec, COCO's run lengths and the session store encode from."""

import numpy as np
from jaxtyping import Bool, Int64


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
