"""Methods that give a hierarchy: region merging, and normalised cuts of walks and of features."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from walkcut.backbones import FeatureKind, ImageFeatures
from walkcut.backbones.embedding import embed_attention
from walkcut.hierarchy.cut_tree import CutTree, build_tree
from walkcut.hierarchy.granularity import Level
from walkcut.hierarchy.hierarchy import Hierarchy, renumber
from walkcut.segmentation.algorithms.border_refinement import refine_borders
from walkcut.segmentation.algorithms.diffcut import normalised_patches, power_affinity
from walkcut.segmentation.algorithms.random_walk import walk
from walkcut.segmentation.algorithms.recursive_ncut import (
    Affinity,
    FixedThreshold,
    ManC,
    StoppingRule,
    cut_graph,
    recursive_ncut,
)
from walkcut.segmentation.algorithms.region_merging import merge_leaves, watershed_leaves
from walkcut.segmentation.algorithms.upsampling import assign_pixels, leaf_score_maps
from walkcut.segmentation.methods.inputs import contour_features, patch_features, transition_matrix
from walkcut.telemetry.spans import span

_MAX_MERGED_LEAVES = 256  # finer regions are texture
_BOUNDS = {Level.COARSE: (2, 8), Level.MEDIUM: (4, 20), Level.FINE: (8, 40)}  # of the number of segments
# Coarse, medium and fine make all cuts of at most these costs.
NCUT_COSTS = (0.2, 0.48, 0.72)
DIFFCUT_COSTS = (0.16, 0.3, 0.4)


@dataclass(frozen=True)
class Merge:
    """Watershed regions of the contour map, merged bottom-up."""

    requires: ClassVar[frozenset[FeatureKind]] = frozenset({"contour", "feature_map"})

    def build_tree(self, features: ImageFeatures, image: UInt8[Tensor, "y x 3"]) -> CutTree:
        """See `Method`."""
        contour, _ = contour_features(features)
        with span("cut"):
            leaves = watershed_leaves(contour)
        return _merge_tree(leaves, features, image)


@dataclass(frozen=True)
class AttentionMerge:
    """Watershed regions of the contour map, merged bottom-up by what they attend to beside their histograms."""

    requires: ClassVar[frozenset[FeatureKind]] = frozenset({"contour", "feature_map", "attention_maps"})

    def build_tree(self, features: ImageFeatures, image: UInt8[Tensor, "y x 3"]) -> CutTree:
        """See `Method`."""
        P, grid = transition_matrix(features)
        contour, _ = contour_features(features)
        with span("embed"):
            embedding = embed_attention(P, grid, (contour.shape[0], contour.shape[1]))
        return Merge().build_tree(replace(features, embedding=embedding), image)


@dataclass(frozen=True)
class NCut:
    """Random walk of the attention, `walk_steps` steps long, cut top-down (DWC).

    Cutting continues past the stopping `rule` to `max_leaves`, so that the tree has finer levels too; with `None` it
    ends where the rule stops. Each cut tries `thresholds` evenly spaced values; with `None`, all.
    """

    requires: ClassVar[frozenset[FeatureKind]] = frozenset({"attention_maps"})

    affinity: Affinity = "dot"
    walk_steps: int = 1
    rule: StoppingRule = field(default_factory=ManC)
    max_leaves: int | None = 64
    thresholds: int | None = None

    def build_tree(self, features: ImageFeatures, image: UInt8[Tensor, "y x 3"]) -> CutTree:
        """See `Method`."""
        scores, hierarchy = self.leaves(features)
        with span("assign"):
            labels = assign_pixels(scores, (image.shape[0], image.shape[1]))
        return _with_levels(build_tree(labels, hierarchy, {}), NCUT_COSTS)

    def leaves(self, features: ImageFeatures) -> tuple[Float[Tensor, "k h w"], Hierarchy]:
        """Return the score maps of the leaves, and their hierarchy."""
        P, grid = transition_matrix(features)
        with span("walk"):
            P = walk(P, self.walk_steps)
        leaf_of, hierarchy = recursive_ncut(
            P, affinity=self.affinity, rule=self.rule, max_leaves=self.max_leaves, thresholds=self.thresholds
        )
        with span("assign"):
            return leaf_score_maps(P, torch.from_numpy(leaf_of).to(P.device), grid), hierarchy


@dataclass(frozen=True)
class NCutMerge:
    """Leaves of a random walk cut top-down, merged bottom-up."""

    requires: ClassVar[frozenset[FeatureKind]] = frozenset({"contour", "feature_map", "attention_maps"})

    ncut: NCut = field(default_factory=NCut)

    def build_tree(self, features: ImageFeatures, image: UInt8[Tensor, "y x 3"]) -> CutTree:
        """See `Method`."""
        contour, _ = contour_features(features)
        scores, _ = self.ncut.leaves(features)
        leaves = assign_pixels(scores, (contour.shape[0], contour.shape[1]))
        return _merge_tree(renumber(leaves.astype(np.int64)), features, image)


@dataclass(frozen=True)
class DiffCut:
    """Affinity of the features, sharpened by `exponent`, cut top-down (DiffCut); other settings as for `NCut`."""

    requires: ClassVar[frozenset[FeatureKind]] = frozenset({"feature_map"})

    rule: StoppingRule = field(default_factory=lambda: FixedThreshold(0.5))
    exponent: float = 10
    max_leaves: int | None = 64
    thresholds: int | None = 100

    def build_tree(self, features: ImageFeatures, image: UInt8[Tensor, "y x 3"]) -> CutTree:
        """See `Method`."""
        patches = patch_features(features)
        F = normalised_patches(patches)
        with span("affinity"):
            A = power_affinity(F, self.exponent)
        with span("cut"):
            leaf_of, hierarchy = cut_graph(A, rule=self.rule, max_leaves=self.max_leaves, thresholds=self.thresholds)
        with span("assign"):
            grid, segments = (patches.shape[0], patches.shape[1]), torch.from_numpy(leaf_of).to(F.device)
            # As in the authors' program the means are not normalised again.
            scores = leaf_score_maps(F, segments, grid, normalised=False)
            labels = assign_pixels(scores, (image.shape[0], image.shape[1]))
        return _with_levels(build_tree(labels, hierarchy, {}), DIFFCUT_COSTS)


def named_levels(hierarchy: Hierarchy, costs: tuple[float, float, float]) -> dict[Level, int]:
    """Return the numbers of segments after all cuts of at most the costs of coarse, medium and fine, within bounds."""
    segments = [1 + int((hierarchy.costs <= cost).sum()) for cost in costs]
    return {
        level: min(max(count, minimum), maximum, hierarchy.leaf_count)
        for count, (level, (minimum, maximum)) in zip(segments, _BOUNDS.items(), strict=True)
    }


def distinct_levels(levels: Mapping[Level, int], hierarchy: Hierarchy) -> dict[Level, int]:
    """Return the nearest numbers of segments that rise from coarse to fine and differ from that of auto.

    They lie between 2 and 40. Of equally near ones those farther apart are taken, then the coarser ones. Where there
    are fewer than three such numbers, levels rise from 2 as far as the leaves allow.
    """
    auto, largest = 1 + int(hierarchy.is_cut.sum()), min(hierarchy.leaf_count, _BOUNDS[Level.FINE][1])
    wanted = [max(2, min(levels[level], largest)) for level in _BOUNDS]
    # Three other numbers are in the way of each at most.
    near = {count + step for count in wanted for step in range(-3, 4)}
    allowed = sorted(count for count in near if 2 <= count <= largest and count != auto)
    chosen = min(
        combinations(allowed, len(wanted)),
        key=lambda counts: (sum(abs(a - b) for a, b in zip(counts, wanted, strict=True)), counts[0] - counts[-1]),
        default=tuple(min(count, largest) for count in range(2, 2 + len(wanted))),
    )
    return dict(zip(_BOUNDS, chosen, strict=True))


def _merge_tree(leaves: Int64[np.ndarray, "h w"], features: ImageFeatures, image: UInt8[Tensor, "y x 3"]) -> CutTree:
    """Return the tree of these leaves merged bottom-up."""
    contour, feature_map = contour_features(features)
    with span("cut"):
        merged = merge_leaves(leaves, contour, feature_map, embedding=features.embedding, rule=features.merge_rule)
    distinct = 1 + int((merged.costs < 1).sum())  # regions at a cost of 1 differ by rounding alone
    leaf_of, hierarchy = merged.coarsened(min(distinct, _MAX_MERGED_LEAVES))
    with span("assign"):
        labels = refine_borders(leaf_of[leaves], image, reach=features.contour_error)
    return _with_levels(build_tree(labels, hierarchy, {}), features.merge_rule.levels)


def _with_levels(tree: CutTree, costs: tuple[float, float, float]) -> CutTree:
    """Return a tree with its named levels: after it was built, which may have dropped leaves."""
    return replace(tree, levels=distinct_levels(named_levels(tree.hierarchy, costs), tree.hierarchy))
