"""The classical baselines keep the contract of a system, and find obvious segments."""

import sys

import numpy as np
import pytest

from tests.builders.scenes import agreement, quarter_labels, quarters
from walkcut.errors import SettingsError
from walkcut.evaluation.classical_baselines import CLASSICAL_BASELINES, ClassicalBaseline
from walkcut.evaluation.classical_methods import ColourKMeans, KMeansSetting
from walkcut.evaluation.systems import System

all_baselines = pytest.mark.parametrize("baseline", CLASSICAL_BASELINES.values(), ids=CLASSICAL_BASELINES)
GREY = np.repeat(quarters(60, 90).mean(2, keepdims=True).astype(np.uint8), 3, axis=2)
IMAGES = {
    "grey": GREY,
    "one colour": np.full((50, 40, 3), 90, np.uint8),
    "black": np.zeros((30, 40, 3), np.uint8),
    "tiny": quarters(16, 16),
    "one pixel": quarters(1, 1),
    "four pixels": quarters(2, 2),
    "line": quarters(1, 60),
    "long": quarters(4, 700),
}


@all_baselines
def test_a_baseline_is_a_system(baseline: System) -> None:
    assert isinstance(baseline, System)
    assert CLASSICAL_BASELINES[baseline.name] is baseline
    assert 8 <= len(set(baseline.settings)) == len(baseline.settings) <= 14


@all_baselines
@pytest.mark.parametrize("image", IMAGES.values(), ids=IMAGES)
def test_labels_fit_the_image_and_have_no_gaps(baseline: System, image: np.ndarray) -> None:
    answers = baseline.segment(image, 1)
    assert len(answers) == len(baseline.settings)
    for labels in answers:
        assert labels.shape == image.shape[:2]
        assert np.array_equal(np.unique(labels), np.arange(labels.max() + 1))


@all_baselines
def test_labels_are_the_same_each_time_and_whatever_the_truth(baseline: System) -> None:
    image = quarters(60, 90, noise=30)
    for first, second in zip(baseline.segment(image, 2), baseline.segment(image, 9), strict=True):
        assert np.array_equal(first, second)


@all_baselines
def test_a_baseline_finds_four_quarters(baseline: System) -> None:
    found = baseline.segment(quarters(240, 320), 1)
    assert max(agreement(labels, quarter_labels(240, 320)) for labels in found if labels.max() < 8) > 0.97


@all_baselines
def test_settings_go_from_coarse_to_fine(baseline: System) -> None:
    segments = [labels.max() for labels in baseline.segment(quarters(120, 160, noise=60), 1)]
    assert segments[0] < segments[-1]


def test_settings_name_their_parameters() -> None:
    baseline = ClassicalBaseline("k", ColourKMeans((KMeansSetting(2, 0.05), KMeansSetting(3, 0.01))), side=50)
    assert baseline.settings == ("k=2 min_part=0.05", "k=3 min_part=0.01")


def test_another_setting_is_another_version() -> None:
    first, same, changed, smaller = (
        ClassicalBaseline("k", ColourKMeans((KMeansSetting(k, 0.05),)), side=side)
        for k, side in ((2, 50), (2, 50), (3, 50), (2, 40))
    )
    assert first.version == same.version
    assert len({first.version, changed.version, smaller.version}) == 3


def test_without_scikit_learn_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)
    with pytest.raises(SettingsError, match=r"sklearn.cluster is not installed: pip install 'walkcut\[evaluation\]'"):
        CLASSICAL_BASELINES["kmeans"].segment(quarters(16, 16), 1)
