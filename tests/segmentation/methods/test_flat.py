"""Methods that give one partition, and its coarser levels."""

import pytest
import torch

from tests.builders.features import IMAGE, quartered
from tests.builders.scenes import agreement, quarter_labels
from walkcut.backbones import ImageFeatures
from walkcut.errors import SettingsError
from walkcut.hierarchy.granularity import Level, Segments
from walkcut.segmentation.algorithms.diffseg import diffseg
from walkcut.segmentation.methods import Method
from walkcut.segmentation.methods.flat import AutoSC, Dbscan, DiffSeg, KMeans, MaskCut, TokenCut


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
