"""Figures: which images are drawn, and how."""

import base64
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.builders.evaluation import ONE, PIXELS, QUARTERS, FixedSystem, quarter_dataset
from tests.builders.ground_truth import save_image, save_labels
from tests.builders.scenes import quarter_labels
from walkcut.evaluation.figures import Figure, ImageFigures, image_figures, ladder_columns, oracle_merged_labels, ranked
from walkcut.evaluation.protocols import PROTOCOLS
from walkcut.evaluation.runner import EvaluationRun


def figures(root: Path, system: FixedSystem, setting: str, *, classes: bool = False) -> list[ImageFigures]:
    """Draw three images of quarters, the second with a truth of one part."""
    images = quarter_dataset(root, classes=classes)
    save_labels(root / "labels" / "1.png", ONE.astype(np.uint8))
    run = EvaluationRun(system, images, PROTOCOLS["native"])
    return image_figures(run, list(run.results()), setting)


def pixels(figure: Figure) -> np.ndarray:
    kind, data = figure.url.split(",")
    assert kind == "data:image/jpeg;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


@pytest.mark.parametrize(
    ("covering", "expected"),
    [
        ([0.5], [("worst", 0)]),
        ([0.2, 0.5], [("best", 1), ("worst", 0)]),
        ([0.2, 0.9, 0.5], [("best", 1), ("median", 2), ("worst", 0)]),
        (
            np.linspace(0, 1, 11),
            [(rank, n) for rank, top in (("best", 10), ("median", 6), ("worst", 2)) for n in (top, top - 1, top - 2)],
        ),
    ],
)
def test_best_median_and_worst_images_are_shown(covering: list[float], expected: list[tuple[str, int]]) -> None:
    assert ranked(np.array(covering)) == expected


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_no_image_is_shown_twice_and_the_worst_one_is(covering: list[float]) -> None:
    ranks = ranked(np.array(covering))
    assert len({index for _, index in ranks}) == len(ranks) <= 9
    assert ranks[-1][0] == "worst"
    assert covering[ranks[-1][1]] == min(covering)


@pytest.mark.parametrize(
    ("segments", "expected"),
    [
        ([64, 32, 16, 8, 4, 2, 1], [5, 4, 3, 2, 1, 0]),
        (list(range(1, 101)), [1, 3, 9, 20, 45, 99]),
        ([3, 1, 3], [0]),
        ([1, 1], [0]),
    ],
)
def test_a_ladder_goes_from_few_segments_to_many(segments: list[int], expected: list[int]) -> None:
    assert ladder_columns(segments) == expected


def test_the_figures_are_image_prediction_merged_prediction_and_truth(tmp_path: Path) -> None:
    best, _, worst = figures(tmp_path, FixedSystem((PIXELS, QUARTERS)), "0")
    image, prediction, merged, truth = best.figures
    assert [figure.caption for figure in best.figures] == [
        "image", "prediction: 360 segments", "oracle-merged: 4 segments", "truth, first of 1: 4 segments",
    ]  # fmt: skip
    original = np.asarray(Image.open(tmp_path / "images" / f"{best.name}.png"))
    assert np.abs(pixels(image).mean(axis=(0, 1)) - original.mean(axis=(0, 1))).max() < 5
    assert merged.url == truth.url
    assert len({image.url, prediction.url, truth.url}) == 3
    assert (worst.name, worst.rank, worst.score.covering) == ("1", "worst", 1 / 360)
    assert worst.figures[2].caption == "oracle-merged: 1 segment"


def test_the_ladder_names_settings_segments_and_covering(tmp_path: Path) -> None:
    best, *_ = figures(tmp_path, FixedSystem((ONE, PIXELS, ONE, QUARTERS, QUARTERS)), "3")
    assert [figure.caption for figure in best.ladder] == [
        "4 segments at 3, covering 1.00", "360 segments at 1, covering 0.01",
    ]  # fmt: skip
    assert pixels(best.ladder[0]).shape == (18, 20, 3)


def test_the_truths_classes_are_named_and_a_system_with_one_setting_has_no_ladder(tmp_path: Path) -> None:
    best, *_ = figures(tmp_path, FixedSystem((QUARTERS,)), "0", classes=True)
    assert best.figures[-1].caption == "truth: sky, sea, land, man"
    assert best.ladder == ()


def test_pixels_that_are_not_scored_are_dark_in_the_truth(tmp_path: Path) -> None:
    images = quarter_dataset(tmp_path, classes=True, images=1)
    save_labels(tmp_path / "labels" / "0.png", np.where(QUARTERS == 3, 255, QUARTERS).astype(np.uint8))
    run = EvaluationRun(FixedSystem((QUARTERS,)), images, PROTOCOLS["native"])
    (drawn,) = image_figures(run, list(run.results()), "0")
    truth = drawn.figures[-1]
    assert truth.caption == "truth: sky, sea, land; dark: not scored"
    assert pixels(truth)[10:, 11:].mean() < 50 < pixels(truth)[:8, :9].mean()


def test_figures_are_small_whatever_the_image(tmp_path: Path) -> None:
    save_image(tmp_path / "images" / "0.png", 1000, 500)
    labels = quarter_labels(1000, 500)
    save_labels(tmp_path / "labels" / "0.png", labels.astype(np.uint8))
    run = EvaluationRun(FixedSystem((labels,)), quarter_dataset(tmp_path, images=0), PROTOCOLS["native"])
    (drawn,) = image_figures(run, list(run.results()), "0")
    assert [pixels(figure).shape for figure in drawn.figures] == [(400, 200, 3)] * 4


def test_the_merged_prediction_is_what_the_protocol_scores(tmp_path: Path) -> None:
    """DiffCut's background takes all segments that no class is matched to, even one on an object."""
    images = replace(quarter_dataset(tmp_path, classes=True), classes=("cat", "dog", "background"))
    truth = np.array([[0, 0, 2, 2, 2, 2]])
    labels = np.array([[1, 1, 0, 0, 2, 3]])
    run = EvaluationRun(FixedSystem(), images, PROTOCOLS["dwc"])
    assert oracle_merged_labels(run, labels, truth).tolist() == truth.tolist()
    strict = EvaluationRun(FixedSystem(), images, PROTOCOLS["native"])
    straddling = np.array([[0, 0, 0, 1, 2, 2]])
    extra = np.array([[0, 1, 1, 1, 2, 2]])
    assert oracle_merged_labels(run, straddling, truth).tolist() == [[0, 0, 0, 2, 2, 2]]
    assert oracle_merged_labels(strict, extra, np.array([[0, 0, 0, 2, 2, 2]])).tolist() == [[0, 0, 0, 0, 2, 2]]
    assert oracle_merged_labels(run, extra, np.array([[0, 0, 0, 2, 2, 2]])).tolist() == [[2, 0, 0, 0, 2, 2]]
