"""Methods that give one partition, and its coarser levels."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import normalize

from tests.builders.features import IMAGE, quartered
from tests.builders.scenes import agreement, quarter_labels
from walkcut.backbones import ImageFeatures
from walkcut.errors import SegmentationError, SettingsError
from walkcut.hierarchy.granularity import Level, Segments
from walkcut.hierarchy.hierarchy import renumber
from walkcut.segmentation.algorithms.diffseg import diffseg
from walkcut.segmentation.methods import Method
from walkcut.segmentation.methods.flat import AutoSC, Dbscan, DiffSeg, KMeans, MaskCut, TokenCut, average_linkage


@pytest.mark.parametrize("method", [DiffSeg(), KMeans(4), Dbscan(), AutoSC()], ids=str)
def test_the_quarters_are_found(method: Method) -> None:
    tree = method.build_tree(quartered(), IMAGE)
    assert tree.segment_count(Level.AUTO) == 4
    assert agreement(tree.labels(Level.AUTO), quarter_labels(64, 96)) > 0.95


@pytest.mark.parametrize(("method", "segments"), [(TokenCut(), 2), (MaskCut(3), 3)], ids=str)
def test_objects_stand_out_from_the_background(method: Method, segments: int) -> None:
    features = torch.zeros(3, 16, 24)
    features[0] = 1
    features[:, 4:8, 5:11], features[:, 9:13, 14:19] = torch.eye(3)[1, :, None, None], torch.eye(3)[2, :, None, None]
    assert method.build_tree(ImageFeatures(feature_map=features), IMAGE).segment_count(Level.AUTO) == segments


def test_diffseg_is_the_public_function() -> None:
    maps = quartered().attention_maps
    labels = diffseg(
        [level.weights for level in maps], grids=[level.grid for level in maps], threshold=0.7, anchors=3, size=(64, 96)
    )
    tree = DiffSeg(0.7, anchors=3).build_tree(quartered(), IMAGE)
    assert tree.leaves.tolist() == labels.tolist()


def test_levels_have_all_half_and_a_quarter_of_the_segments() -> None:
    tree = KMeans(6).build_tree(quartered(), IMAGE)
    assert tree.segment_count(Level.AUTO) == tree.segment_count(Level.FINE)
    count = tree.segment_count(Level.FINE)
    assert tree.segment_count(Level.MEDIUM) == -(-count // 2)
    assert tree.segment_count(Level.COARSE) == -(-count // 4)


def test_kmeans_without_a_number_of_clusters_is_refused() -> None:
    with pytest.raises(SettingsError, match="only `walkcut evaluate` sets the number of clusters: choose another"):
        KMeans(clusters=None).build_tree(quartered(), IMAGE)


def test_segments_with_similar_means_merge_first() -> None:
    features = torch.zeros(3, 4, 8)
    features[0, :, :3], features[1, :, 3:], features[2, :, 6:] = 1, 1, 0.5  # the two on the right are similar
    tree = AutoSC().build_tree(ImageFeatures(feature_map=features), IMAGE)
    assert tree.segment_count(Level.AUTO) == 3
    left, middle, right = tree.labels(Segments(2))[32, [10, 50, 90]].tolist()
    assert left != middle == right


def test_merges_by_hand() -> None:
    # Directions of 0°, 90°, 20° and 120°; lengths count for nothing.
    angles = torch.tensor([0, 90, 20, 120], dtype=torch.float64).deg2rad()
    means = torch.tensor([[1.0], [5.0], [2.0], [0.1]]) * torch.stack([angles.cos(), angles.sin()], 1)
    hierarchy = average_linkage(means)
    assert hierarchy.merges.tolist() == [[0, 2], [1, 3], [4, 5]]
    apart = [math.cos(math.radians(degrees)) for degrees in (90, 70, 120, 100)]
    expected = [math.cos(math.radians(20)), math.cos(math.radians(30)), max(0.0, sum(apart) / 4)]
    np.testing.assert_allclose(hierarchy.costs, expected, atol=1e-12)
    assert hierarchy.is_cut.tolist() == [True] * 3


def test_linkage_is_average() -> None:
    angles = torch.tensor([0, 10, 60], dtype=torch.float64).deg2rad()
    costs = average_linkage(torch.stack([angles.cos(), angles.sin()], 1)).costs
    assert costs[1] == pytest.approx((math.cos(math.radians(60)) + math.cos(math.radians(50))) / 2)


def test_one_segment_has_no_merges() -> None:
    hierarchy = average_linkage(torch.ones(1, 3))
    assert hierarchy.leaf_count == 1
    assert hierarchy.merges.shape == (0, 2)
    assert hierarchy.cluster_of(hierarchy.is_cut).tolist() == [0]


def test_opposite_means_cost_nothing_and_equal_ones_cost_one() -> None:
    hierarchy = average_linkage(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [3.0, 0.0]]))
    assert hierarchy.merges.tolist() == [[0, 2], [1, 3]]
    assert hierarchy.costs.tolist() == [1, 0]


@given(st.integers(2, 12), st.integers(1, 4), st.integers(0, 1000))
def test_the_hierarchy_is_valid(segments: int, channels: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    means = torch.randint(-1, 2, (segments, channels), generator=generator).float()  # zeros and ties abound
    hierarchy, again = average_linkage(means), average_linkage(means.clone())
    assert sorted(hierarchy.merges.ravel().tolist()) == list(range(2 * segments - 2))
    assert (hierarchy.merges.max(1) < np.arange(segments - 1) + segments).all()
    assert (np.diff(hierarchy.costs) <= 0).all()
    assert ((hierarchy.costs >= 0) & (hierarchy.costs <= 1)).all()
    assert hierarchy.merges.tolist() == again.merges.tolist()
    nearest = (normalize(means.double()) @ normalize(means.double()).T).fill_diagonal_(-1).max()
    assert hierarchy.costs[0] == pytest.approx(max(0.0, float(nearest)))
    assert renumber(hierarchy.cluster_of(~hierarchy.is_cut)).tolist() == list(range(segments))


def test_means_that_are_not_finite_are_refused() -> None:
    with pytest.raises(SegmentationError, match="mean features must be finite"):
        average_linkage(torch.tensor([[1.0], [torch.nan]]))
