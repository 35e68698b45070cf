"""The classical baselines keep the contract of a system, and find obvious segments; their graph, links and parts."""

import sys

import numpy as np
import pytest
from skimage.color import rgb2lab
from skimage.segmentation import quickshift

from tests.builders.scenes import agreement, quarter_labels, quarters
from walkcut.errors import SettingsError
from walkcut.evaluation.classical_baselines import (
    CLASSICAL_BASELINES,
    ClassicalBaseline,
    kmeans_labels,
    linked,
    slic_ncut_labels,
    without_small,
)
from walkcut.evaluation.metrics import contingency_table, variation_of_information
from walkcut.evaluation.systems import System
from walkcut.hierarchy.hierarchy import renumber

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
    parameters = ({"k": 2, "min_part": 0.05}, {"k": 3, "min_part": 0.01})
    baseline = ClassicalBaseline("k", kmeans_labels, parameters, side=50)
    assert baseline.settings == ("k=2 min_part=0.05", "k=3 min_part=0.01")


def test_another_setting_is_another_version() -> None:
    first, same, changed, smaller = (
        ClassicalBaseline("k", kmeans_labels, ({"k": k, "min_part": 0.05},), side=side)
        for k, side in ((2, 50), (2, 50), (3, 50), (2, 40))
    )
    assert first.version == same.version
    assert len({first.version, changed.version, smaller.version}) == 3


def test_without_scikit_learn_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)
    with pytest.raises(SettingsError, match=r"sklearn.cluster is not installed: pip install 'walkcut\[evaluation\]'"):
        CLASSICAL_BASELINES["kmeans"].segment(quarters(16, 16), 1)


def test_no_edge_of_the_superpixels_graph_weighs_less_than_the_minimum() -> None:
    """By default colours separate four quarters; if all edges weigh 1, nothing does."""
    lab = rgb2lab(quarters(60, 80))
    default, equal = (slic_ncut_labels(lab, [{"thresh": 0.03}], min_weight=weight)[0] for weight in (1e-3, 1.0))
    assert agreement(renumber(default), quarter_labels(60, 80)) > 0.97
    assert len(np.unique(equal)) == 1


def test_linked_pixels_follow_their_parents() -> None:
    parent = np.array([[1, 1, 1, 4, 4]])
    assert linked(parent, np.array([[True, True, True, True, True]])).tolist() == [[0, 0, 0, 1, 1]]
    assert linked(parent, np.array([[True, True, False, True, True]])).tolist() == [[0, 0, 1, 2, 2]]


@pytest.mark.parametrize("longest", [3, 10, 40])
def test_one_tree_of_links_cut_is_quickshift_itself(longest: float) -> None:
    lab = rgb2lab(quarters(24, 32, noise=30))
    _, parent, length = quickshift(lab, kernel_size=4, max_dist=np.inf, convert2lab=False, return_tree=True)
    direct = quickshift(lab, kernel_size=4, max_dist=longest, convert2lab=False)
    ours = linked(np.asarray(parent), np.asarray(length) <= longest)
    assert variation_of_information(contingency_table(ours, direct)) == 0


def test_parts_of_a_cluster_are_segments_and_small_ones_go_to_the_nearest() -> None:
    clusters = np.array([[0, 0, 1, 1, 0, 0], [0, 0, 2, 1, 0, 0]])
    assert renumber(without_small(clusters, 0.1)).tolist() == [[0, 0, 1, 1, 2, 2], [0, 0, 0, 1, 2, 2]]
    assert len(np.unique(without_small(clusters, 0))) == 4
    assert not without_small(clusters, 0.9).any()
