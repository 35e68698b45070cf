"""Methods that give one flat partition: DiffSeg and the papers' baselines.

Coarser levels merge its segments by their mean features: fine is the partition itself, medium has half as many
segments, and coarse a quarter.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, one_hot

from walkcut.backbones import FeatureKind, ImageFeatures
from walkcut.errors import SettingsError
from walkcut.hierarchy.cut_tree import CutTree, build_tree
from walkcut.hierarchy.granularity import Level
from walkcut.segmentation.algorithms import clustering
from walkcut.segmentation.algorithms.autosc import autosc
from walkcut.segmentation.algorithms.diffseg import object_proposals
from walkcut.segmentation.algorithms.linkage import average_linkage
from walkcut.segmentation.algorithms.upsampling import upsampled_argmax
from walkcut.segmentation.methods.inputs import patch_features, transition_matrix
from walkcut.telemetry.spans import span

Size = tuple[int, int]


class _FlatMethod(ABC):
    """A method that labels each pixel by comparing patches."""

    @abstractmethod
    def _patches(self, features: ImageFeatures) -> Float[Tensor, "h w c"]:
        """Return the vector of each patch that is compared."""

    @abstractmethod
    def _labels(self, patches: Float[Tensor, "h w c"], size: Size) -> Int64[Tensor, "y x"]:
        """Return the segment of each pixel of an image of `size` (height, width)."""

    def build_tree(self, features: ImageFeatures, image: UInt8[Tensor, "y x 3"]) -> CutTree:
        """See `Method`."""
        patches = self._patches(features)
        with span("cut"):
            labels = self._labels(patches, (image.shape[0], image.shape[1]))
        return _flat_tree(labels, patches)


class _AttentionMethod(_FlatMethod):
    """A method that compares the rows of the transition matrix."""

    requires: ClassVar[frozenset[FeatureKind]] = frozenset({"attention_maps"})

    def _patches(self, features: ImageFeatures) -> Float[Tensor, "h w c"]:
        P, grid = transition_matrix(features)
        return P.unflatten(0, grid)


class _FeatureMethod(_FlatMethod):
    """A method that compares the model's features."""

    requires: ClassVar[frozenset[FeatureKind]] = frozenset({"feature_map"})

    def _patches(self, features: ImageFeatures) -> Float[Tensor, "h w c"]:
        return patch_features(features)


@dataclass(frozen=True)
class DiffSeg(_AttentionMethod):
    """Attention maps merged by divergence (Tian et al. 2024); for the settings see `segmentation.diffseg`."""

    threshold: float = 1.0
    rounds: int = 3
    anchors: int = 16
    refine: bool = False
    half_precision: bool = False

    def _labels(self, patches: Float[Tensor, "h w c"], size: Size) -> Int64[Tensor, "y x"]:
        grid = patches.shape[0], patches.shape[1]
        proposals = object_proposals(
            patches.flatten(0, 1),
            grid,
            threshold=self.threshold,
            rounds=self.rounds,
            anchors=self.anchors,
            refine=self.refine,
            half_precision=self.half_precision,
        )
        return upsampled_argmax(proposals.unflatten(1, grid), size)


@dataclass(frozen=True)
class KMeans(_AttentionMethod):
    """K-means (DiffSeg, table 1); with `clusters=None`, `walkcut evaluate` sets the number of true classes."""

    clusters: int | None = 6

    def _labels(self, patches: Float[Tensor, "h w c"], size: Size) -> Int64[Tensor, "y x"]:
        if self.clusters is None:
            raise SettingsError("only `walkcut evaluate` sets the number of clusters: choose another method")
        return clustering.kmeans(patches, clusters=self.clusters, size=size)


@dataclass(frozen=True)
class Dbscan(_AttentionMethod):
    """DBSCAN (DiffSeg, table 1, which does not give the radius)."""

    radius: float = 0.05
    neighbours: int = 5

    def _labels(self, patches: Float[Tensor, "h w c"], size: Size) -> Int64[Tensor, "y x"]:
        return clustering.dbscan(patches, radius=self.radius, neighbours=self.neighbours, size=size)


@dataclass(frozen=True)
class TokenCut(_FeatureMethod):
    """One salient object (Wang et al. 2022)."""

    threshold: float = 0.2

    def _labels(self, patches: Float[Tensor, "h w c"], size: Size) -> Int64[Tensor, "y x"]:
        return clustering.tokencut(patches, threshold=self.threshold, size=size)


@dataclass(frozen=True)
class MaskCut(_FeatureMethod):
    """At most `objects` salient objects, one after the other (Wang et al. 2023)."""

    objects: int = 3
    threshold: float = 0.15

    def _labels(self, patches: Float[Tensor, "h w c"], size: Size) -> Int64[Tensor, "y x"]:
        return clustering.maskcut(patches, objects=self.objects, threshold=self.threshold, size=size)


@dataclass(frozen=True)
class AutoSC(_FeatureMethod):
    """Spectral clustering with the number of clusters chosen by the eigengap (DiffCut's variant)."""

    def _labels(self, patches: Float[Tensor, "h w c"], size: Size) -> Int64[Tensor, "y x"]:
        return autosc(patches, size=size)


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
