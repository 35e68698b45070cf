"""Methods that make a hierarchy of their own: merging, normalised cuts of walks, and of features."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from walkcut.backbones import FeatureKind, ImageFeatures
from walkcut.hierarchy.cut_tree import CutTree, build_tree
from walkcut.hierarchy.granularity import Level
from walkcut.hierarchy.hierarchy import Hierarchy, renumber
from walkcut.segmentation.algorithms.diffcut import normalised_patches, power_affinity
from walkcut.segmentation.algorithms.ncut import Affinity, FixedThreshold, ManC, StoppingRule, cut_graph, recursive_ncut
from walkcut.segmentation.algorithms.random_walk import walk
from walkcut.segmentation.algorithms.region_merging import merge_leaves, watershed_leaves
from walkcut.segmentation.algorithms.upsampling import (
    ScoreMaps,
    assign_pixels,
    joint_bilateral_upsample,
    leaf_score_maps,
    upsampled_argmax,
)
from walkcut.segmentation.methods.inputs import contour_features, patch_features, transition_matrix
from walkcut.telemetry.spans import span

_MOST_MERGED_LEAVES = 256  # far beyond what anyone asks for; smaller ones are texture


@dataclass(frozen=True)
class LevelBound:
    """A named level: all cuts that cost at most `tau`, but no fewer than `fewest` and no more than `most` segments."""

    tau: float
    fewest: int
    most: int


Bounds = Mapping[Level, LevelBound]


def _bounds(coarse: float, medium: float, fine: float) -> Bounds:
    return {
        Level.COARSE: LevelBound(coarse, 2, 8),
        Level.MEDIUM: LevelBound(medium, 4, 20),
        Level.FINE: LevelBound(fine, 8, 40),
    }


# About 4, 10 and 22 segments at the median of BSDS500 val, with the classical backbone.
MERGE_BOUNDS = _bounds(0.27, 0.46, 0.63)
NCUT_BOUNDS = _bounds(0.2, 0.48, 0.72)
DIFFCUT_BOUNDS = _bounds(0.16, 0.3, 0.4)


@dataclass(frozen=True)
class Merge:
    """The watershed leaves of the contour, joined bottom-up."""

    requires: ClassVar[frozenset[FeatureKind]] = frozenset({"contour", "features"})

    def build_tree(self, image_features: ImageFeatures, image: UInt8[Tensor, "y x 3"]) -> CutTree:
        """See `Method`."""
        contour, features = contour_features(image_features)
        with span("cut"):
            leaves = watershed_leaves(contour)
        return _merged(leaves, contour, features, image)


@dataclass(frozen=True)
class NCut:
    """The attention's random walk of `walk_steps` steps, cut top-down (DWC).

    With `max_leaves` cutting goes on past the stopping `rule`, so that the tree answers finer levels too; without, it
    ends where the rule says. `thresholds` evenly spaced values are tried for each cut; without, all there are.
    """

    requires: ClassVar[frozenset[FeatureKind]] = frozenset({"maps"})

    affinity: Affinity = "dot"
    walk_steps: int = 1
    rule: StoppingRule = field(default_factory=ManC)
    max_leaves: int | None = 64
    thresholds: int | None = None

    def build_tree(self, image_features: ImageFeatures, image: UInt8[Tensor, "y x 3"]) -> CutTree:
        """See `Method`."""
        scores, hierarchy = self.leaves(image_features)
        with span("assign"):
            labels = assign_pixels(scores, (image.shape[0], image.shape[1]))
        return build_tree(labels, hierarchy, named_levels(hierarchy, NCUT_BOUNDS))

    def leaves(self, image_features: ImageFeatures) -> tuple[ScoreMaps, Hierarchy]:
        """The leaves' scores and their hierarchy."""
        P, grid = transition_matrix(image_features)
        with span("walk"):
            P = walk(P, self.walk_steps)
        leaf_of, hierarchy = recursive_ncut(
            P, affinity=self.affinity, rule=self.rule, max_leaves=self.max_leaves, thresholds=self.thresholds
        )
        with span("assign"):
            return leaf_score_maps(P, torch.from_numpy(leaf_of).to(P.device), grid), hierarchy


@dataclass(frozen=True)
class NCutMerge:
    """The leaves of a walk that was cut top-down, joined bottom-up."""

    requires: ClassVar[frozenset[FeatureKind]] = frozenset({"contour", "features", "maps"})

    ncut: NCut = field(default_factory=NCut)

    def build_tree(self, image_features: ImageFeatures, image: UInt8[Tensor, "y x 3"]) -> CutTree:
        """See `Method`."""
        contour, features = contour_features(image_features)
        scores, _ = self.ncut.leaves(image_features)
        leaves = assign_pixels(scores, (contour.shape[0], contour.shape[1]))
        return _merged(renumber(leaves.astype(np.int64)), contour, features, image)


@dataclass(frozen=True)
class DiffCut:
    """The features' affinity, sharpened by `exponent`, cut top-down (DiffCut); the rest as for `NCut`."""

    requires: ClassVar[frozenset[FeatureKind]] = frozenset({"features"})

    rule: StoppingRule = field(default_factory=lambda: FixedThreshold(0.5))
    exponent: float = 10
    max_leaves: int | None = 64
    thresholds: int | None = 100

    def build_tree(self, image_features: ImageFeatures, image: UInt8[Tensor, "y x 3"]) -> CutTree:
        """See `Method`."""
        features = patch_features(image_features)
        F = normalised_patches(features)
        with span("affinity"):
            A = power_affinity(F, self.exponent)
        with span("cut"):
            leaf_of, hierarchy = cut_graph(A, rule=self.rule, max_leaves=self.max_leaves, thresholds=self.thresholds)
        with span("assign"):
            scores = leaf_score_maps(F, torch.from_numpy(leaf_of).to(F.device), (features.shape[0], features.shape[1]))
            # By the authors' product, in which the means are not normalised again.
            labels = upsampled_argmax(scores.scores, (image.shape[0], image.shape[1])).cpu().numpy()
        return build_tree(labels, hierarchy, named_levels(hierarchy, DIFFCUT_BOUNDS))


def named_levels(hierarchy: Hierarchy, bounds: Bounds) -> dict[Level, int]:
    """How many segments coarse, medium and fine mean for this image."""
    return {
        level: min(max(1 + int((hierarchy.costs <= bound.tau).sum()), bound.fewest), bound.most, hierarchy.leaves)
        for level, bound in bounds.items()
    }


def _merged(
    leaves: Int64[np.ndarray, "h w"],
    contour: Float[Tensor, "h w"],
    features: Float[Tensor, "c h w"],
    image: UInt8[Tensor, "y x 3"],
) -> CutTree:
    """The tree of these leaves joined bottom-up."""
    with span("cut"):
        merged = merge_leaves(leaves, contour, features)
    distinct = 1 + int((merged.costs < 1).sum())  # what costs 1 to cut differs by rounding alone
    leaf_of, hierarchy = merged.coarsened(min(distinct, _MOST_MERGED_LEAVES))
    with span("assign"):
        labels = joint_bilateral_upsample(leaf_of[leaves], image)
    return build_tree(labels, hierarchy, named_levels(hierarchy, MERGE_BOUNDS))
