"""Methods that give one partition: DiffSeg and the papers' clustering. Coarser levels join its segments by their means.

There is nothing finer than the method's own answer: fine is that, medium half as many segments, coarse a quarter.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, one_hot

from walkcut.backbones import Evidence, Part
from walkcut.errors import SettingsError
from walkcut.hierarchy.cut_tree import CutTree, grow_tree
from walkcut.hierarchy.granularity import Level
from walkcut.segmentation.algorithms import clustering
from walkcut.segmentation.algorithms.autosc import autosc
from walkcut.segmentation.algorithms.diffseg import object_proposals
from walkcut.segmentation.algorithms.linkage import join_by_mean
from walkcut.segmentation.algorithms.upsampling import strongest
from walkcut.segmentation.methods.inputs import patch_features, transitions
from walkcut.telemetry.stages import stage

Size = tuple[int, int]


class _Partition(ABC):
    """A method that gives each pixel one label."""

    @abstractmethod
    def patches(self, evidence: Evidence) -> Float[Tensor, "h w c"]:
        """What the patches are compared by."""

    @abstractmethod
    def labels(self, patches: Float[Tensor, "h w c"], size: Size) -> Int64[Tensor, "y x"]:
        """The segment of each pixel of a picture of `size`."""

    def tree(self, evidence: Evidence, picture: UInt8[Tensor, "y x 3"]) -> CutTree:
        """See `Method`."""
        patches = self.patches(evidence)
        with stage("cut"):
            labels = self.labels(patches, (picture.shape[0], picture.shape[1]))
        return _flat_tree(labels, patches)


class _OfMaps(_Partition):
    """The patches are compared by the rows of the transition matrix."""

    parts: ClassVar[frozenset[Part]] = frozenset({"maps"})

    def patches(self, evidence: Evidence) -> Float[Tensor, "h w c"]:
        """The rows, as a grid."""
        P, grid = transitions(evidence)
        return P.unflatten(0, grid)


class _OfFeatures(_Partition):
    """The patches are compared by the model's features."""

    parts: ClassVar[frozenset[Part]] = frozenset({"features"})

    def patches(self, evidence: Evidence) -> Float[Tensor, "h w c"]:
        """The features, as a grid."""
        return patch_features(evidence)


@dataclass(frozen=True)
class DiffSeg(_OfMaps):
    """Attention maps merged by divergence; the settings are those of `segmentation.diffseg`."""

    threshold: float = 1.0
    rounds: int = 3
    anchors: int = 16
    refine: bool = False
    half_precision: bool = False

    def labels(self, patches: Float[Tensor, "h w c"], size: Size) -> Int64[Tensor, "y x"]:
        """See `_Partition`."""
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
        return strongest(proposals.unflatten(1, grid), size)


@dataclass(frozen=True)
class KMeans(_OfMaps):
    """K-means (DiffSeg, table 1). Without a number of `clusters`, `walkcut evaluate` tells it the truth's."""

    clusters: int | None = 6

    def labels(self, patches: Float[Tensor, "h w c"], size: Size) -> Int64[Tensor, "y x"]:
        """See `_Partition`."""
        if self.clusters is None:
            raise SettingsError("this K-means has no number of clusters: it serves `walkcut evaluate` alone")
        return clustering.kmeans(patches, clusters=self.clusters, size=size)


@dataclass(frozen=True)
class Dbscan(_OfMaps):
    """DBSCAN (DiffSeg, table 1, which does not tell the radius)."""

    radius: float = 0.05
    neighbours: int = 5

    def labels(self, patches: Float[Tensor, "h w c"], size: Size) -> Int64[Tensor, "y x"]:
        """See `_Partition`."""
        return clustering.dbscan(patches, radius=self.radius, neighbours=self.neighbours, size=size)


@dataclass(frozen=True)
class TokenCut(_OfFeatures):
    """One salient object (Wang et al. 2022)."""

    threshold: float = 0.2

    def labels(self, patches: Float[Tensor, "h w c"], size: Size) -> Int64[Tensor, "y x"]:
        """See `_Partition`."""
        return clustering.tokencut(patches, threshold=self.threshold, size=size)


@dataclass(frozen=True)
class MaskCut(_OfFeatures):
    """Salient objects, one after the other (Wang et al. 2023)."""

    objects: int = 3
    threshold: float = 0.15

    def labels(self, patches: Float[Tensor, "h w c"], size: Size) -> Int64[Tensor, "y x"]:
        """See `_Partition`."""
        return clustering.maskcut(patches, objects=self.objects, threshold=self.threshold, size=size)


@dataclass(frozen=True)
class AutoSC(_OfFeatures):
    """Spectral clustering with as many clusters as the eigengap tells (DiffCut's variant)."""

    def labels(self, patches: Float[Tensor, "h w c"], size: Size) -> Int64[Tensor, "y x"]:
        """See `_Partition`."""
        return autosc(patches, size=size)


def _flat_tree(labels: Int64[Tensor, "y x"], patches: Float[Tensor, "h w c"]) -> CutTree:
    """The tree whose leaves are a partition's segments, each with the mean of the patches that its pixels lie in."""
    segments = labels.unique(return_inverse=True)[1]
    member = one_hot(segments).permute(2, 0, 1).float()
    shares = adaptive_avg_pool2d(member, (patches.shape[0], patches.shape[1])).flatten(1)
    means = (shares / shares.sum(1, keepdim=True)).to(patches) @ patches.flatten(0, 1)
    hierarchy = join_by_mean(means)
    count = hierarchy.leaves
    levels = {Level.COARSE: -(-count // 4), Level.MEDIUM: -(-count // 2), Level.FINE: count}
    return grow_tree(segments.cpu().numpy(), hierarchy, levels)
