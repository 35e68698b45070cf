"""Calibration of names: how often names with a score were right on annotated tasks that were held out."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

_DECIMALS = 3  # of scores, so that rounding errors do not decide
_DEVIATIONS = 1.0  # of the lower bound: at least 9 of 9 names must have been right for a confidence of 0.9


@dataclass(frozen=True)
class Calibration:
    """The confidence in label `l` at a score of at least `scores[i]` is `bounds[i, l]`; below `scores[0]` it is 0."""

    scores: Float64[np.ndarray, " t"]
    bounds: Float64[np.ndarray, "t l"]

    def confidences(
        self, scores: Float64[np.ndarray, " s"], labels: Int64[np.ndarray, " s"]
    ) -> Float64[np.ndarray, " s"]:
        """Return the confidence in each name: the fraction of such names that is right, estimated low."""
        rows = np.searchsorted(self.scores, scores.round(_DECIMALS), "right")
        return np.concatenate([np.zeros((1, self.bounds.shape[1])), self.bounds])[rows, labels]


def calibrate(
    scores: Float64[np.ndarray, " n"],
    names: Int64[np.ndarray, " n"],
    truths: Int64[np.ndarray, " n"],
    tasks: Int64[np.ndarray, " n"],
    label_count: int,
) -> Calibration:
    """Calibrate by names for the segments of held-out tasks, with their scores, labels and true labels.

    The confidence at a score is the Wilson lower bound of the fraction of right names among all with at least this
    score, and at most the fraction among the label's own; a higher score never has a lower confidence. The names of one
    task with one label are alike, so they count as one name together.
    """
    _, group, sizes = np.unique(tasks * label_count + names, return_inverse=True, return_counts=True)
    weights = (names == np.arange(label_count)[:, None]) / sizes[group]  # label × name
    scores = scores.round(_DECIMALS)
    thresholds = np.unique(scores)
    reached = (scores >= thresholds[:, None]).astype(np.float64)
    counts, right = reached @ weights.T, reached @ (weights * (names == truths)).T
    pooled = wilson_lower_bound(right.sum(1), counts.sum(1))
    bounds = np.minimum(pooled[:, None], right / np.maximum(counts, np.finfo(np.float64).tiny))
    return Calibration(thresholds, np.maximum.accumulate(bounds, axis=0).round(6))  # 9 of 9 may add up to 8.999…


def wilson_lower_bound(
    right: Float64[np.ndarray, " t"], count: Float64[np.ndarray, " t"], deviations: float = _DEVIATIONS
) -> Float64[np.ndarray, " t"]:
    """Return the lower end of Wilson's (1927) score interval of a fraction, `deviations` standard deviations wide.

    >>> wilson_lower_bound(np.array([3.0, 9.0, 90.0]), np.array([3.0, 9.0, 100.0])).round(2).tolist()
    [0.75, 0.9, 0.87]
    """
    squared = deviations**2
    fraction = right / np.maximum(count, np.finfo(np.float64).tiny)
    spread = deviations * np.sqrt(fraction * (1 - fraction) * count + squared / 4)
    return (right + squared / 2 - spread) / (count + squared)
