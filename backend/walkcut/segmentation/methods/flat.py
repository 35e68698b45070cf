"""Methods that give one flat partition: DiffSeg and the papers' baselines.

Coarser levels merge its segments by their mean features: fine is the partition itself, medium has half as many
segments, and coarse a quarter.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from scipy.cluster.hierarchy import linkage
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, normalize, one_hot

from walkcut.backbones import FeatureKind, ImageFeatures
from walkcut.errors import SegmentationError, SettingsError
from walkcut.hierarchy.cut_tree import CutTree, build_tree
from walkcut.hierarchy.granularity import Level
from walkcut.hierarchy.hierarchy import Hierarchy
from walkcut.segmentation.algorithms import clustering
from walkcut.segmentation.algorithms.autosc import autosc
from walkcut.segmentation.algorithms.diffseg import DiffSegSettings, object_proposals
from walkcut.segmentation.algorithms.upsampling import Size, upsampled_argmax
from walkcut.segmentation.methods.inputs import patch_features, transition_matrix
from walkcut.telemetry.spans import span

_ATTENTION: frozenset[FeatureKind] = frozenset({"attention_maps"})


class _FlatMethod(ABC):
    """A method that labels each pixel by comparing patches: their features, or their rows of the transition matrix."""

    requires: ClassVar[frozenset[FeatureKind]] = frozenset({"feature_map"})

    @abstractmethod
    def _labels(self, patches: Float[Tensor, "h w c"], size: Size) -> Int64[Tensor, "y x"]:
        """Return the segment of each pixel of an image of `size` (height, width)."""

    def build_tree(self, features: ImageFeatures, image: UInt8[Tensor, "y x 3"]) -> CutTree:
        """See `Method`."""
        if "feature_map" in self.requires:
            patches = patch_features(features)
        else:
            P, grid = transition_matrix(features)
            patches = P.unflatten(0, grid)
        with span("cut"):
            labels = self._labels(patches, (image.shape[0], image.shape[1]))
        return _flat_tree(labels, patches)


@dataclass(frozen=True)
class DiffSeg(DiffSegSettings, _FlatMethod):
    """Attention maps merged by divergence (Tian et al. 2024)."""

    requires = _ATTENTION

    def _labels(self, patches: Float[Tensor, "h w c"], size: Size) -> Int64[Tensor, "y x"]:
        grid = patches.shape[0], patches.shape[1]
        return upsampled_argmax(object_proposals(patches.flatten(0, 1), grid, self).unflatten(1, grid), size)


@dataclass(frozen=True)
class KMeans(_FlatMethod):
    """K-means (DiffSeg, table 1); with `clusters=None`, `walkcut evaluate` sets the number of true classes."""

    requires = _ATTENTION

    clusters: int | None = 6

    def _labels(self, patches: Float[Tensor, "h w c"], size: Size) -> Int64[Tensor, "y x"]:
        if self.clusters is None:
            raise SettingsError("only `walkcut evaluate` sets the number of clusters: choose another method")
        return clustering.kmeans(patches, clusters=self.clusters, size=size)


@dataclass(frozen=True)
class Dbscan(_FlatMethod):
    """DBSCAN (DiffSeg, table 1, which does not give the radius)."""

    requires = _ATTENTION

    radius: float = 0.05
    neighbours: int = 5

    def _labels(self, patches: Float[Tensor, "h w c"], size: Size) -> Int64[Tensor, "y x"]:
        return clustering.dbscan(patches, radius=self.radius, neighbours=self.neighbours, size=size)


@dataclass(frozen=True)
class TokenCut(_FlatMethod):
    """One salient object (Wang et al. 2022)."""

    threshold: float = 0.2

    def _labels(self, patches: Float[Tensor, "h w c"], size: Size) -> Int64[Tensor, "y x"]:
        return clustering.tokencut(patches, threshold=self.threshold, size=size)


@dataclass(frozen=True)
class MaskCut(_FlatMethod):
    """At most `objects` salient objects, one after the other (Wang et al. 2023)."""

    objects: int = 3
    threshold: float = 0.15

    def _labels(self, patches: Float[Tensor, "h w c"], size: Size) -> Int64[Tensor, "y x"]:
        return clustering.maskcut(patches, objects=self.objects, threshold=self.threshold, size=size)


@dataclass(frozen=True)
class AutoSC(_FlatMethod):
    """Spectral clustering with the number of clusters chosen by the eigengap (DiffCut's variant)."""

    def _labels(self, patches: Float[Tensor, "h w c"], size: Size) -> Int64[Tensor, "y x"]:
        return autosc(patches, size=size)


def average_linkage(means: Float[Tensor, "k c"]) -> Hierarchy:
    """Return the hierarchy of segments with these mean features, by average linkage of their cosines.

    A merge costs the average cosine between its halves, clipped to [0, 1]. `is_cut` is true for all merges, so that the
    granularity auto gives the segments themselves. Raises `SegmentationError` for means that are not finite.
    """
    if not bool(torch.isfinite(means).all()):
        raise SegmentationError("mean features must be finite: check the model's precision")
    unit = normalize(means.double(), dim=1).cpu()
    pairs = torch.triu_indices(len(unit), len(unit), 1)
    if pairs.numel() == 0:
        return Hierarchy(np.empty((0, 2), np.int64), np.empty(0), np.empty(0, np.bool_))
    tree = linkage((1 - unit @ unit.T)[pairs[0], pairs[1]].numpy(), "average")
    return Hierarchy(tree[:, :2].astype(np.int64), (1 - tree[:, 2]).clip(0, 1), np.full(len(tree), fill_value=True))


def _flat_tree(labels: Int64[Tensor, "y x"], patches: Float[Tensor, "h w c"]) -> CutTree:
    """Return the tree over the segments of a partition, merged by the mean of the patches that they cover."""
    segments = labels.unique(return_inverse=True)[1]
    member = one_hot(segments).permute(2, 0, 1).float()
    coverage = adaptive_avg_pool2d(member, (patches.shape[0], patches.shape[1])).flatten(1)
    means = (coverage / coverage.sum(1, keepdim=True)).to(patches) @ patches.flatten(0, 1)
    hierarchy = average_linkage(means)
    count = hierarchy.leaf_count
    levels = {Level.COARSE: -(-count // 4), Level.MEDIUM: -(-count // 2), Level.FINE: count}
    return build_tree(segments.cpu().numpy(), hierarchy, levels)
