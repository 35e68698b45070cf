"""Methods that give one partition, and the coarser levels made of it."""

import pytest
import torch

from tests.builders.scenes import agreement, quarter_labels
from tests.segmentation.methods.test_hierarchical import IMAGE, quartered
from walkcut.backbones import ImageFeatures
from walkcut.errors import SettingsError
from walkcut.hierarchy.granularity import Level, Segments
from walkcut.segmentation.algorithms.diffseg import diffseg
from walkcut.segmentation.methods import Method
from walkcut.segmentation.methods.flat import AutoSC, Dbscan, DiffSeg, KMeans, MaskCut, TokenCut


@pytest.mark.parametrize("method", [DiffSeg(), KMeans(4), Dbscan(), AutoSC()], ids=str)
def test_the_quarters_are_found(method: Method) -> None:
    tree = method.build_tree(quartered(), IMAGE)
    assert tree.segments(Level.AUTO) == 4
    assert agreement(tree.labels(Level.AUTO), quarter_labels(64, 96)) > 0.95


@pytest.mark.parametrize(("method", "segments"), [(TokenCut(), 2), (MaskCut(3), 3)], ids=str)
def test_objects_stand_out_from_the_background(method: Method, segments: int) -> None:
    features = torch.zeros(3, 16, 24)
    features[0] = 1
    features[:, 4:8, 5:11], features[:, 9:13, 14:19] = torch.eye(3)[1, :, None, None], torch.eye(3)[2, :, None, None]
    assert method.build_tree(ImageFeatures(features=features), IMAGE).segments(Level.AUTO) == segments


def test_diffseg_is_the_published_function() -> None:
    maps = quartered().maps
    labels = diffseg(
        [level.weights for level in maps], grids=[level.grid for level in maps], threshold=0.7, anchors=3, size=(64, 96)
    )
    tree = DiffSeg(0.7, anchors=3).build_tree(quartered(), IMAGE)
    assert tree.leaves.tolist() == labels.tolist()


def test_levels_are_the_answer_half_and_a_quarter_of_it() -> None:
    tree = KMeans(6).build_tree(quartered(), IMAGE)
    assert tree.segments(Level.AUTO) == tree.segments(Level.FINE)
    found = tree.segments(Level.FINE)
    assert tree.segments(Level.MEDIUM) == -(-found // 2)
    assert tree.segments(Level.COARSE) == -(-found // 4)


def test_kmeans_that_waits_for_the_truth_serves_nobody_else() -> None:
    with pytest.raises(SettingsError, match="no number of clusters: it serves `walkcut evaluate` alone"):
        KMeans(clusters=None).build_tree(quartered(), IMAGE)


def test_segments_with_like_means_join_first() -> None:
    features = torch.zeros(3, 4, 8)
    features[0, :, :3], features[1, :, 3:], features[2, :, 6:] = 1, 1, 0.5  # the two on the right are alike
    tree = AutoSC().build_tree(ImageFeatures(features=features), IMAGE)
    assert tree.segments(Level.AUTO) == 3
    left, middle, right = tree.labels(Segments(2))[32, [10, 50, 90]].tolist()
    assert left != middle == right
