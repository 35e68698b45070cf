"""Methods that give one partition: DiffSeg and the papers' clustering. Coarser levels join its segments by their means.

There is nothing finer than the method's own answer: fine is that, medium half as many segments, coarse a quarter.
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
    """A method that gives each pixel one label."""

    @abstractmethod
    def patches(self, image_features: ImageFeatures) -> Float[Tensor, "h w c"]:
        """What the patches are compared by."""

    @abstractmethod
    def labels(self, patches: Float[Tensor, "h w c"], size: Size) -> Int64[Tensor, "y x"]:
        """The segment of each pixel of an image of `size`."""

    def build_tree(self, image_features: ImageFeatures, image: UInt8[Tensor, "y x 3"]) -> CutTree:
        """See `Method`."""
        patches = self.patches(image_features)
        with span("cut"):
            labels = self.labels(patches, (image.shape[0], image.shape[1]))
        return _flat_tree(labels, patches)


class _AttentionMethod(_FlatMethod):
    """The patches are compared by the rows of the transition matrix."""

    requires: ClassVar[frozenset[FeatureKind]] = frozenset({"maps"})

    def patches(self, image_features: ImageFeatures) -> Float[Tensor, "h w c"]:
        """The rows, as a grid."""
        P, grid = transition_matrix(image_features)
        return P.unflatten(0, grid)


class _FeatureMethod(_FlatMethod):
    """The patches are compared by the model's features."""

    requires: ClassVar[frozenset[FeatureKind]] = frozenset({"features"})

    def patches(self, image_features: ImageFeatures) -> Float[Tensor, "h w c"]:
        """The features, as a grid."""
        return patch_features(image_features)


@dataclass(frozen=True)
class DiffSeg(_AttentionMethod):
    """Attention maps merged by divergence; the settings are those of `segmentation.diffseg`."""

    threshold: float = 1.0
    rounds: int = 3
    anchors: int = 16
    refine: bool = False
    half_precision: bool = False

    def labels(self, patches: Float[Tensor, "h w c"], size: Size) -> Int64[Tensor, "y x"]:
        """See `_FlatMethod`."""
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
    """K-means (DiffSeg, table 1). Without a number of `clusters`, `walkcut evaluate` tells it the truth's."""

    clusters: int | None = 6

    def labels(self, patches: Float[Tensor, "h w c"], size: Size) -> Int64[Tensor, "y x"]:
        """See `_FlatMethod`."""
        if self.clusters is None:
            raise SettingsError("this K-means has no number of clusters: it serves `walkcut evaluate` alone")
        return clustering.kmeans(patches, clusters=self.clusters, size=size)


@dataclass(frozen=True)
class Dbscan(_AttentionMethod):
    """DBSCAN (DiffSeg, table 1, which does not tell the radius)."""

    radius: float = 0.05
    neighbours: int = 5

    def labels(self, patches: Float[Tensor, "h w c"], size: Size) -> Int64[Tensor, "y x"]:
        """See `_FlatMethod`."""
        return clustering.dbscan(patches, radius=self.radius, neighbours=self.neighbours, size=size)


@dataclass(frozen=True)
class TokenCut(_FeatureMethod):
    """One salient object (Wang et al. 2022)."""

    threshold: float = 0.2

    def labels(self, patches: Float[Tensor, "h w c"], size: Size) -> Int64[Tensor, "y x"]:
        """See `_FlatMethod`."""
        return clustering.tokencut(patches, threshold=self.threshold, size=size)


@dataclass(frozen=True)
class MaskCut(_FeatureMethod):
    """Salient objects, one after the other (Wang et al. 2023)."""

    objects: int = 3
    threshold: float = 0.15

    def labels(self, patches: Float[Tensor, "h w c"], size: Size) -> Int64[Tensor, "y x"]:
        """See `_FlatMethod`."""
        return clustering.maskcut(patches, objects=self.objects, threshold=self.threshold, size=size)


@dataclass(frozen=True)
class AutoSC(_FeatureMethod):
    """Spectral clustering with as many clusters as the eigengap tells (DiffCut's variant)."""

    def labels(self, patches: Float[Tensor, "h w c"], size: Size) -> Int64[Tensor, "y x"]:
        """See `_FlatMethod`."""
        return autosc(patches, size=size)


def _flat_tree(labels: Int64[Tensor, "y x"], patches: Float[Tensor, "h w c"]) -> CutTree:
    """The tree whose leaves are a partition's segments, each with the mean of the patches that its pixels lie in."""
    segments = labels.unique(return_inverse=True)[1]
    member = one_hot(segments).permute(2, 0, 1).float()
    shares = adaptive_avg_pool2d(member, (patches.shape[0], patches.shape[1])).flatten(1)
    means = (shares / shares.sum(1, keepdim=True)).to(patches) @ patches.flatten(0, 1)
    hierarchy = average_linkage(means)
    count = hierarchy.leaves
    levels = {Level.COARSE: -(-count // 4), Level.MEDIUM: -(-count // 2), Level.FINE: count}
    return build_tree(segments.cpu().numpy(), hierarchy, levels)
