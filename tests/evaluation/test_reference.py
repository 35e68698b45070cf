"""The fast forms against the papers' own words."""

import pytest
import torch

from tests.builders.features import IMAGE, quartered
from walkcut.backbones import AttentionMap, ImageFeatures
from walkcut.evaluation.reference import NoReferenceError, reference_labels
from walkcut.hierarchy.granularity import Level
from walkcut.hierarchy.hierarchy import renumber
from walkcut.segmentation.algorithms.recursive_ncut import FixedThreshold, ScaledMinCut
from walkcut.segmentation.methods import Method
from walkcut.segmentation.methods.flat import DiffSeg
from walkcut.segmentation.methods.hierarchical import DiffCut, Merge, NCut


def patchy(seed: int) -> ImageFeatures:
    """Attention of two levels, and features, that follow a few blurred blobs."""
    draw = torch.Generator().manual_seed(seed)
    maps = []
    for height, width in ((5, 7), (10, 14)):
        places = torch.cartesian_prod(torch.arange(height) / height, torch.arange(width) / width)
        blob = (places[:, None] - torch.rand(5, 2, generator=draw)).norm(dim=2).argmin(1)
        weights = torch.exp(5.0 * (blob[:, None] == blob) + torch.rand(len(blob), len(blob), generator=draw))
        maps.append(AttentionMap((height, width), weights / weights.sum(1, keepdim=True)))
    features = torch.eye(5)[blob].T + 0.2 * torch.rand(5, len(blob), generator=draw)
    return ImageFeatures(attention_maps=tuple(maps), feature_map=features.unflatten(1, (10, 14)))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "method",
    [
        NCut(max_leaves=None, thresholds=100),
        NCut("cosine", rule=FixedThreshold(0.6), max_leaves=None, thresholds=100),
        NCut(walk_steps=3, rule=ScaledMinCut(), max_leaves=None, thresholds=100),
        DiffCut(max_leaves=None),
        DiffSeg(0.2, anchors=4),
    ],
    ids=str,
)
def test_the_fast_form_labels_as_the_reference(method: Method, seed: int) -> None:
    fast = method.build_tree(patchy(seed), IMAGE)
    reference = reference_labels(method, patchy(seed), fast.size)
    assert fast.segment_count(Level.AUTO) > 1
    assert renumber(reference.numpy()).tolist() == fast.labels(Level.AUTO).tolist()


def test_methods_without_a_published_form_are_refused() -> None:
    with pytest.raises(NoReferenceError, match=r"Merge\(\) has no published form: compare NCut"):
        reference_labels(Merge(), quartered(), (4, 4))
