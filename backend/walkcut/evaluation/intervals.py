"""Bootstrap intervals: how much scores depend on which images were drawn."""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from jaxtyping import Int64

_RESAMPLES: Final = 1000
_PERCENT: Final = (2.5, 97.5)


def bootstrap_intervals(
    scores: Callable[[Int64[np.ndarray, " n"]], Sequence[float]], count: int
) -> tuple[tuple[float, float], ...]:
    """Return the 95 % interval of each score of `count` images; `scores` gets the indices of those drawn.

    Images are drawn with replacement, the same ones for each system, and an interval holds all but the lowest and
    highest 2.5 % of the values: the percentile bootstrap (Efron & Tibshirani 1993, section 13.3).

    >>> ious = np.array([0.5, 0.5, 0.5])
    >>> bootstrap_intervals(lambda drawn: [ious[drawn].mean(), ious[drawn].sum()], 3)
    ((0.5, 0.5), (1.5, 1.5))
    """
    draws = np.random.default_rng(0).integers(count, size=(_RESAMPLES, count))
    low, high = np.percentile([scores(drawn) for drawn in draws], _PERCENT, axis=0)
    return tuple(zip(low.tolist(), high.tolist(), strict=True))
