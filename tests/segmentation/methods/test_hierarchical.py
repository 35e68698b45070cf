"""Methods that make a hierarchy of their own, on evidence with a known answer."""

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.builders.scenes import agreement, quarter_labels, quarters
from walkcut.backbones import AttentionMap, ImageFeatures
from walkcut.errors import SegmentationError
from walkcut.hierarchy.granularity import Level, Segments
from walkcut.hierarchy.hierarchy import Hierarchy
from walkcut.segmentation.algorithms.diffcut import diffcut
from walkcut.segmentation.algorithms.ncut import FixedThreshold
from walkcut.segmentation.methods import Method
from walkcut.segmentation.methods.flat import DiffSeg, KMeans
from walkcut.segmentation.methods.hierarchical import MERGE_BOUNDS, DiffCut, Merge, NCut, NCutMerge, named_levels

IMAGE = torch.from_numpy(quarters(64, 96))


def quartered(height: int = 8, width: int = 12) -> ImageFeatures:
    """Patches that look at their own quarter of the image, and whose features are their quarter's."""
    labels = torch.from_numpy(quarter_labels(height, width)).flatten()
    alike = (labels[:, None] == labels).float() + 0.01
    coarse = torch.from_numpy(quarter_labels(height // 2, width // 2)).flatten()
    coarse_alike = (coarse[:, None] == coarse).float() + 0.01
    features = torch.eye(4)[labels].T.unflatten(1, (height, width)) + 0.1
    return ImageFeatures(
        maps=(
            AttentionMap((height // 2, width // 2), coarse_alike / coarse_alike.sum(1, keepdim=True)),
            AttentionMap((height, width), alike / alike.sum(1, keepdim=True)),
        ),
        features=features,
    )


@pytest.mark.parametrize(
    "method",
    [NCut(), NCut("cosine"), NCut("walk"), NCut(walk_steps=3, max_leaves=None), DiffCut()],
    ids=str,
)
def test_the_quarters_are_found(method: Method) -> None:
    tree = method.build_tree(quartered(), IMAGE)
    assert agreement(tree.labels(Segments(4)), quarter_labels(64, 96)) > 0.95


def test_without_a_bound_on_leaves_a_tree_ends_where_the_rule_stops() -> None:
    bounded, free = (
        NCut(rule=FixedThreshold(0.3), max_leaves=most).build_tree(quartered(), IMAGE) for most in (64, None)
    )
    assert free.hierarchy.leaves == bounded.segments(Level.AUTO) == 4
    assert bounded.hierarchy.leaves > 4
    for labels in (free.leaves, bounded.labels(Level.AUTO)):
        assert agreement(labels, quarter_labels(64, 96)) > 0.95


def test_without_a_bound_on_leaves_diffcut_is_the_published_function() -> None:
    draw = torch.Generator().manual_seed(0)
    features = torch.rand(5, 9, 13, generator=draw) + quarter_features(9, 13)
    tree = DiffCut(max_leaves=None).build_tree(ImageFeatures(features=features), IMAGE)
    assert tree.leaves.tolist() == diffcut(features.permute(1, 2, 0), size=(64, 96)).tolist()


def quarter_features(height: int, width: int) -> Tensor:
    labels = torch.from_numpy(quarter_labels(height, width))
    return 4 * torch.eye(5)[labels].permute(2, 0, 1)


def test_more_steps_of_the_walk_are_taken() -> None:
    one, many = (NCut(walk_steps=steps).build_tree(noisy(), IMAGE) for steps in (1, 4))
    assert one.hierarchy.costs.tolist() != many.hierarchy.costs.tolist()


def noisy() -> ImageFeatures:
    weights = torch.rand(96, 96, generator=torch.Generator().manual_seed(0)) ** 4
    return ImageFeatures(maps=(AttentionMap((8, 12), weights / weights.sum(1, keepdim=True)),))


@pytest.mark.parametrize(
    ("method", "lacking"),
    [
        (Merge(), "contour map: choose another method, or the model classical"),
        (NCutMerge(), "contour map: choose another method, or the model classical"),
        (NCut(), "attention maps: choose another method, or another model"),
        (DiffSeg(), "attention maps: choose another method, or another model"),
        (DiffCut(), "features: choose another method, or another model"),
    ],
    ids=str,
)
def test_evidence_that_a_model_owes_is_named(method: Method, lacking: str) -> None:
    with pytest.raises(SegmentationError, match=f"this model gave no {lacking}"):
        method.build_tree(ImageFeatures(), IMAGE)


@pytest.mark.parametrize("method", [Merge(), NCut(), NCutMerge(), DiffCut(), DiffSeg(), KMeans()], ids=str)
def test_a_method_is_one(method: Method) -> None:
    assert isinstance(method, Method)


@pytest.mark.parametrize(("leaves", "fine"), [(5, 5), (20, 8), (1000, 40)])
def test_named_levels_keep_within_their_bounds(leaves: int, fine: int) -> None:
    bound = MERGE_BOUNDS[Level.FINE].tau
    costs = np.full(leaves - 1, bound + 0.01 if leaves < 100 else bound)
    merges = np.stack([np.arange(leaves - 1) + leaves - 1, np.arange(leaves - 1)], 1)
    merges[0] = [leaves - 1, 0]
    hierarchy = Hierarchy(merges, costs, np.zeros(leaves - 1, bool))
    assert named_levels(hierarchy, MERGE_BOUNDS)[Level.FINE] == fine
