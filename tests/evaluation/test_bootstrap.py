import numpy as np
import pytest

from walkcut.evaluation.bootstrap import bootstrap_interval


def test_the_interval_of_independent_values_is_that_of_their_mean() -> None:
    values = np.random.default_rng(1).normal(5, 2, 400)
    low, high = bootstrap_interval(values, np.arange(400))
    error = values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - 1.96 * error, values.mean() + 1.96 * error), abs=0.1 * error)


def test_values_of_one_group_are_drawn_together() -> None:
    values, groups = np.repeat([0.0, 1.0], 50), np.repeat([7, 3], 50)
    assert bootstrap_interval(values, groups) == (0, 1)
    assert bootstrap_interval(values, np.zeros(100, np.int64)) == (0.5, 0.5)
