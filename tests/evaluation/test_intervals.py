"""Bootstrap intervals, compared with the theory of means."""

import numpy as np
import pytest

from walkcut.evaluation.intervals import bootstrap_intervals


def test_the_interval_of_a_mean_is_that_of_the_normal_distribution() -> None:
    scores = np.random.default_rng(1).normal(10, 2, size=400)
    ((low, high),) = bootstrap_intervals(lambda drawn: [float(scores[drawn].mean())], 400)
    error = 1.96 * scores.std() / 400**0.5
    assert (low, high) == pytest.approx((scores.mean() - error, scores.mean() + error), abs=0.03)


def test_systems_are_compared_on_the_same_draws() -> None:
    scores = np.random.default_rng(1).normal(size=30)
    (first,) = bootstrap_intervals(lambda drawn: [float(scores[drawn].mean())], 30)
    (second,) = bootstrap_intervals(lambda drawn: [float(scores[drawn].mean() + 1)], 30)
    assert second == pytest.approx((first[0] + 1, first[1] + 1))


def test_one_image_has_no_interval() -> None:
    assert bootstrap_intervals(lambda drawn: [float(drawn[0])], 1) == ((0, 0),)
