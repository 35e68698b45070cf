"""Methods that give a hierarchy, on features with a known segmentation."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.builders.features import IMAGE, quartered
from tests.builders.scenes import agreement, quarter_labels
from walkcut.backbones import AttentionMap, ImageFeatures
from walkcut.backbones.classical import ClassicalBackbone
from walkcut.errors import SegmentationError
from walkcut.hierarchy.granularity import Level, Segments
from walkcut.hierarchy.hierarchy import Hierarchy
from walkcut.hierarchy.merge_rule import MergeRule
from walkcut.interactive.selection import leaves_within, split_leaves
from walkcut.segmentation.algorithms.diffcut import diffcut
from walkcut.segmentation.algorithms.recursive_ncut import FixedThreshold
from walkcut.segmentation.methods import Method
from walkcut.segmentation.methods.flat import DiffSeg, KMeans
from walkcut.segmentation.methods.hierarchical import (
    AttentionMerge,
    DiffCut,
    Merge,
    NCut,
    NCutMerge,
    distinct_levels,
    named_levels,
)


@pytest.mark.parametrize(
    "method",
    [NCut(), NCut("cosine"), NCut("walk"), NCut(walk_steps=3, max_leaves=None), DiffCut()],
    ids=str,
)
def test_the_quarters_are_found(method: Method) -> None:
    tree = method.build_tree(quartered(), IMAGE)
    assert agreement(tree.labels(Segments(4)), quarter_labels(64, 96)) > 0.95


def test_regions_merge_by_what_they_attend_to() -> None:
    contour = torch.zeros(64, 96)
    contour[3::8], contour[:, 3::8] = 0.1, 0.1  # cells of one contrast
    noise = 1 + torch.rand(1, 64, 96, generator=torch.Generator().manual_seed(0))
    features = replace(quartered(16, 24), contour=contour, feature_map=noise)
    with_attention, without = (method.build_tree(features, IMAGE) for method in (AttentionMerge(), Merge()))
    assert agreement(with_attention.labels(Segments(4)), quarter_labels(64, 96)) > 0.85
    assert agreement(without.labels(Segments(4)), quarter_labels(64, 96)) < 0.6


def test_an_unbounded_tree_ends_where_the_rule_stops() -> None:
    bounded, unbounded = (
        NCut(rule=FixedThreshold(0.3), max_leaves=max_leaves).build_tree(quartered(), IMAGE)
        for max_leaves in (64, None)
    )
    assert unbounded.hierarchy.leaf_count == bounded.segment_count(Level.AUTO) == 4
    assert bounded.hierarchy.leaf_count > 4
    for labels in (unbounded.leaves, bounded.labels(Level.AUTO)):
        assert agreement(labels, quarter_labels(64, 96)) > 0.95


def test_unbounded_diffcut_is_the_public_function() -> None:
    draw = torch.Generator().manual_seed(0)
    features = torch.rand(5, 9, 13, generator=draw) + quarter_features(9, 13)
    tree = DiffCut(max_leaves=None).build_tree(ImageFeatures(feature_map=features), IMAGE)
    assert tree.leaves.tolist() == diffcut(features.permute(1, 2, 0), size=(64, 96)).tolist()


def quarter_features(height: int, width: int) -> Tensor:
    labels = torch.from_numpy(quarter_labels(height, width))
    return 4 * torch.eye(5)[labels].permute(2, 0, 1)


def test_the_steps_of_the_walk_matter() -> None:
    short, long = (NCut(walk_steps=steps).build_tree(noisy(), IMAGE) for steps in (1, 4))
    assert short.hierarchy.costs.tolist() != long.hierarchy.costs.tolist()


def noisy() -> ImageFeatures:
    weights = torch.rand(96, 96, generator=torch.Generator().manual_seed(0)) ** 4
    return ImageFeatures(attention_maps=(AttentionMap((8, 12), weights / weights.sum(1, keepdim=True)),))


@pytest.mark.parametrize(
    ("method", "lacking"),
    [
        (Merge(), "contour map: choose another method, or the model classical"),
        (AttentionMerge(), "attention maps: choose another method, or another model"),
        (NCutMerge(), "contour map: choose another method, or the model classical"),
        (NCut(), "attention maps: choose another method, or another model"),
        (DiffSeg(), "attention maps: choose another method, or another model"),
        (DiffCut(), "features: choose another method, or another model"),
    ],
    ids=str,
)
def test_missing_features_are_named(method: Method, lacking: str) -> None:
    with pytest.raises(SegmentationError, match=f"this model gave no {lacking}"):
        method.build_tree(ImageFeatures(), IMAGE)


@pytest.mark.parametrize(
    "method", [Merge(), AttentionMerge(), NCut(), NCutMerge(), DiffCut(), DiffSeg(), KMeans()], ids=str
)
def test_methods_implement_the_protocol(method: Method) -> None:
    assert isinstance(method, Method)


@pytest.mark.parametrize(("leaves", "fine"), [(5, 5), (20, 8), (1000, 40)])
def test_named_levels_keep_within_their_bounds(leaves: int, fine: int) -> None:
    bound = MergeRule().levels[-1]
    costs = np.full(leaves - 1, bound + 0.01 if leaves < 100 else bound)
    merges = np.stack([np.arange(leaves - 1) + leaves - 1, np.arange(leaves - 1)], 1)
    merges[0] = [leaves - 1, 0]
    hierarchy = Hierarchy(merges, costs, np.zeros(leaves - 1, bool))
    assert named_levels(hierarchy, MergeRule().levels)[Level.FINE] == fine


def _chain(costs: list[float], auto: float) -> Hierarchy:
    """A hierarchy in which leaf after leaf joins the others; auto makes the cuts of at most a cost."""
    falling = np.sort(np.array(costs))[::-1]
    leaves = len(costs) + 1
    merges = np.stack([np.arange(len(costs)) + len(costs), np.arange(leaves)[1:]], 1)
    merges[:1, 0] = 0
    return Hierarchy(merges, falling, falling <= auto)


@given(st.lists(st.floats(0, 1), max_size=60), st.floats(0, 1))
def test_levels_rise_and_differ_from_auto(costs: list[float], tau: float) -> None:
    hierarchy = _chain(costs, tau)
    wanted = named_levels(hierarchy, MergeRule().levels)
    coarse, medium, fine = distinct_levels(wanted, hierarchy).values()
    auto, leaves = 1 + int(hierarchy.is_cut.sum()), hierarchy.leaf_count
    if leaves >= 5:
        assert 2 <= coarse < medium < fine <= leaves
        assert auto not in (coarse, medium, fine)
    else:
        assert [coarse, medium, fine] == [min(count, leaves) for count in (2, 3, 4)]


@pytest.mark.parametrize(
    ("wanted", "auto", "distinct"),
    [
        ((4, 8, 20), 9, [4, 8, 20]),
        ((4, 8, 20), 4, [3, 8, 20]),
        ((4, 8, 20), 8, [4, 7, 20]),
        ((4, 8, 20), 20, [4, 8, 21]),
        ((4, 20, 40), 40, [4, 20, 39]),
        ((8, 8, 8), 8, [6, 7, 9]),
        ((50, 50, 50), 2, [38, 39, 40]),
    ],
)
def test_levels_move_no_further_than_needed(wanted: tuple[int, int, int], auto: int, distinct: list[int]) -> None:
    hierarchy = _chain([0.1] * (auto - 1) + [0.9] * (60 - auto), 0.5)
    levels = dict(zip((Level.COARSE, Level.MEDIUM, Level.FINE), wanted, strict=True))
    assert list(distinct_levels(levels, hierarchy).values()) == distinct


@pytest.mark.parametrize("method", [Merge(), NCutMerge(), NCut(), DiffCut()], ids=str)
def test_levels_of_trees_are_distinct(method: Method) -> None:
    noise = torch.rand(64, 96, 3, generator=torch.Generator().manual_seed(0))
    image = (IMAGE + 60 * noise).clamp(0, 255).to(torch.uint8)
    tree = method.build_tree(ClassicalBackbone().extract(image, ClassicalBackbone.provides), image)
    counts = [tree.segment_count(level) for level in Level]
    assert len(set(counts)) == len(counts) <= tree.hierarchy.leaf_count


def behind_bars(reds: tuple[int, int, int]) -> Tensor:
    """A wall with a little noise, of three colours, behind two dark bars."""
    image = torch.full((220, 360, 3), 20.0)
    for left, red in zip((0, 121, 242), reds, strict=True):
        image[:, left : left + 117] = torch.tensor([red, 180.0, 210.0])
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    return (image + 4 * noise).clamp(0, 255).to(torch.uint8)


PANES, BARS = np.s_[110, [60, 180, 300]], np.s_[110, [119, 240]]


def test_a_wall_behind_bars_is_one_segment_which_a_click_splits() -> None:
    image = behind_bars((150, 150, 150))
    tree = Merge().build_tree(ClassicalBackbone().extract(image, ClassicalBackbone.provides), image)
    labels = tree.labels(Level.AUTO)
    wall = labels == labels[PANES][0]
    assert wall[PANES].all()
    assert not wall[BARS].any()
    parts = [tree.at_pixels(leaves)[PANES] for leaves in split_leaves(tree, leaves_within(tree, wall), 1000)]
    assert sorted(part.sum() for part in parts) == [1, 2]


def test_walls_of_different_colours_behind_bars_are_segments_of_their_own() -> None:
    image = behind_bars((20, 230, 120))
    tree = Merge().build_tree(ClassicalBackbone().extract(image, ClassicalBackbone.provides), image)
    assert len(set(tree.labels(Level.AUTO)[PANES].tolist())) == 3
