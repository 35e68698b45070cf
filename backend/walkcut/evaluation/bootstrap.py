"""Intervals of means by the bootstrap."""

from typing import Final

import numpy as np
from jaxtyping import Float, Integer

_RESAMPLES: Final = 2000
_QUANTILES: Final = (0.025, 0.975)


def bootstrap_interval(values: Float[np.ndarray, " n"], groups: Integer[np.ndarray, " n"]) -> tuple[float, float]:
    """Return the 95 % interval of the mean of values, of which those in one group depend on each other.

    Whole groups are drawn with replacement (Efron 1979), always the same ones.
    """
    _, group = np.unique(groups, return_inverse=True)
    sums, sizes = np.bincount(group, values), np.bincount(group)
    drawn = np.random.default_rng(0).integers(len(sizes), size=(_RESAMPLES, len(sizes)))
    low, high = np.quantile(sums[drawn].sum(1) / sizes[drawn].sum(1), _QUANTILES)
    return float(low), float(high)
