import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from walkcut.learning.calibration import Calibration, calibrate, wilson_lower_bound


def calibrated(*names: tuple[float, int, int], per_task: int = 1) -> Calibration:
    """Calibrate by names of two labels: the score, the label and the true label of each."""
    scores, labels, truths = (np.array(column) for column in zip(*names, strict=True))
    return calibrate(scores.astype(float), labels, truths, np.arange(len(names)) // per_task, 2)


def confidence(calibration: Calibration, score: float, label: int = 0) -> float:
    return float(calibration.confidences(np.array([score]), np.array([label]))[0])


def test_few_right_names_give_no_high_confidence() -> None:
    assert confidence(calibrated(*[(0.8, 0, 0)] * 3), 0.8) == pytest.approx(0.75)
    assert confidence(calibrated(*[(0.8, 0, 0)] * 9), 0.8) == 0.9
    assert confidence(calibrated(*[(0.8, 0, 0)] * 9), 0.79) == 0


def test_a_wrong_name_counts_at_its_score_and_below() -> None:
    calibration = calibrated(*[(0.8, 0, 0)] * 12, *[(0.5, 0, 1)] * 4, *[(0.4, 0, 0)] * 2)
    high, middle, low = (confidence(calibration, score) for score in (0.8, 0.5, 0.4))
    assert high > 0.9
    assert middle < 0.7
    assert low < 0.7


def test_the_names_of_one_task_with_one_label_count_once() -> None:
    names = [(0.8, 0, 0)] * 30
    assert confidence(calibrated(*names, per_task=10), 0.8) == pytest.approx(0.75)
    assert confidence(calibrated(*names), 0.8) > 0.95


def test_a_label_that_is_often_wrong_gets_no_confidence_from_others() -> None:
    calibration = calibrated(*[(0.8, 0, 0)] * 60, *[(0.8, 1, 1), (0.8, 1, 0)] * 2)
    assert confidence(calibration, 0.8) > 0.9
    assert confidence(calibration, 0.8, label=1) == 0.5


def test_without_names_nothing_is_known() -> None:
    nothing = np.zeros(0, np.int64)
    assert confidence(calibrate(nothing.astype(float), nothing, nothing, nothing, 2), 1.0) == 0


@settings(max_examples=40)
@given(st.integers(0, 1000), st.integers(1, 40))
def test_a_higher_score_never_has_a_lower_confidence(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    names, truths = rng.integers(0, 3, (2, count))
    calibration = calibrate(rng.random(count), names, truths, rng.integers(0, 5, count), 3)
    bounds = [confidence(calibration, score, label=1) for score in np.linspace(0, 1, 20)]
    assert bounds == sorted(bounds)
    assert 0 <= bounds[0] <= bounds[-1] < 1


def test_the_lower_bound_nears_the_fraction_with_more_evidence() -> None:
    bounds = wilson_lower_bound(np.array([0.0, 9.0, 90.0, 9000.0]), np.array([0.0, 10.0, 100.0, 10000.0]))
    assert bounds[0] == 0
    assert (np.diff(bounds) > 0).all()
    assert bounds[-1] == pytest.approx(0.9, abs=0.005)
