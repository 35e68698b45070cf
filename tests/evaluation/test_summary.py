"""Summaries: known scores of simple segmentations, and the best settings."""

from pathlib import Path

import numpy as np
import pytest

from tests.builders.evaluation import ONE, PIXELS, QUARTERS, SIZE, FixedSystem, quarter_dataset
from tests.builders.ground_truth import save_labels
from walkcut.evaluation.protocols import PROTOCOLS
from walkcut.evaluation.runner import EvaluationRun
from walkcut.evaluation.summary import at_segments, summarise
from walkcut.evaluation.systems import System


def summary(root: Path, system: System, *, classes: bool = False) -> dict:
    run = EvaluationRun(system, quarter_dataset(root, classes=classes), PROTOCOLS["native"], frozenset({"0", "1"}))
    return summarise(run, list(run.results()))


@pytest.mark.parametrize("classes", [False, True])
def test_a_perfect_answer_scores_1_everywhere(tmp_path: Path, classes: bool) -> None:
    scores = summary(tmp_path, FixedSystem((QUARTERS,)), classes=classes)
    names = ["covering_ods", "covering_ois", "rand_ods", "accuracy", "f1", "miou_hungarian", "miou_oracle"]
    assert [scores[name] for name in names] == [1] * 7
    assert scores["variation_ods"] == scores["variation_ois"] == 0
    assert scores["per_image"]["miou"] == 1


def test_the_boundary_of_a_perfect_answer_is_perfect(tmp_path: Path) -> None:
    scores = summary(tmp_path, FixedSystem())
    assert scores["boundary_f_ods"] == scores["boundary_f_ois"] == 1


@pytest.mark.parametrize("classes", [False, True])
def test_one_segment_scores_what_a_quarter_is_worth(tmp_path: Path, classes: bool) -> None:
    scores = summary(tmp_path, FixedSystem((ONE,)), classes=classes)
    assert scores["covering_ods"] == pytest.approx(1 / 4)
    assert scores["accuracy"] == pytest.approx(1 / 4)
    assert scores["miou_hungarian"] == pytest.approx(1 / 4 / 4)
    assert scores["f1"] == pytest.approx(2 / 5 / 4)
    assert scores["variation_ods"] == pytest.approx(2)


def test_a_segment_per_pixel_is_worth_nothing_until_an_oracle_merges_it(tmp_path: Path) -> None:
    scores = summary(tmp_path, FixedSystem((PIXELS,)))
    assert scores["covering_ods"] == pytest.approx(1 / 90)
    assert scores["miou_hungarian"] == pytest.approx(1 / 90)
    assert scores["miou_oracle"] == 1


def test_the_best_setting_is_reported_and_all_are_listed(tmp_path: Path) -> None:
    scores = summary(tmp_path, FixedSystem())
    assert scores["ods_setting"] == "1"
    assert [row["segments"] for row in scores["settings"]] == [1, 4, 360]
    assert [row["covering"] for row in scores["settings"]] == pytest.approx([1 / 4, 1, 1 / 90])


def test_counts_are_added_up_before_they_are_divided(tmp_path: Path) -> None:
    images = quarter_dataset(tmp_path, classes=True, images=2)
    save_labels(tmp_path / "labels" / "1.png", np.full(SIZE, 4, np.uint8))
    run = EvaluationRun(FixedSystem((QUARTERS,)), images, PROTOCOLS["native"])
    scores = summarise(run, list(run.results()))
    assert scores["accuracy"] == pytest.approx((1 + 1 / 4) / 2)
    # In the second image three extra segments are matched to absent classes.
    assert scores["miou_hungarian"] == pytest.approx(np.mean([1 / 2] * 3 + [1] + [1 / 4]))
    assert scores["per_image"]["miou"] == pytest.approx((1 + 1 / 4 / 4) / 2)


def test_intervals_reach_from_a_sample_of_bad_images_to_one_of_good_ones(tmp_path: Path) -> None:
    images = quarter_dataset(tmp_path, images=2)
    save_labels(tmp_path / "labels" / "1.png", np.full(SIZE, 4, np.uint8))
    run = EvaluationRun(FixedSystem((QUARTERS,)), images, PROTOCOLS["native"], frozenset({"0"}))
    intervals = summarise(run, list(run.results()))["intervals"]
    assert intervals["covering_ods"] == intervals["covering_ois"] == pytest.approx((1 / 4, 1))
    assert intervals["boundary_f_ods"] == pytest.approx((0, 1))


def test_scores_at_a_number_of_segments_lie_between_those_of_settings() -> None:
    rows = [
        {"setting": f"tau={segments}", "segments": segments, "covering": value, "miou": value, "miou_oracle": 0}
        for segments, value in ((16, 0.8), (4, 0.4), (1, 0.0))
    ]
    another = {**rows[0], "setting": "8", "segments": 8, "covering": 0.0}
    for segments, expected in ((4, 0.4), (8, 0.6), (2, 0.2), (99, 0.8)):
        scores = at_segments({"settings": [*rows, another]}, segments)
        assert scores == {"covering": pytest.approx(expected), "miou": pytest.approx(expected), "miou_oracle": 0}
    assert at_segments({"settings": [another]}, 5)["miou"] == 0.8
