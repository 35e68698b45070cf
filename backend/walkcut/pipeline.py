"""A picture in, its cut tree out."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, normalize

from walkcut.errors import SegmentationError, SettingsError
from walkcut.extraction import Evidence, Extractor, Part
from walkcut.segmentation.attention import aggregate, walk
from walkcut.segmentation.diffcut import power_affinity
from walkcut.segmentation.granularity import Level
from walkcut.segmentation.hierarchy import Hierarchy, renumber
from walkcut.segmentation.merge import merge_leaves, watershed_leaves
from walkcut.segmentation.ncut import Affinity, FixedThreshold, ManC, StoppingRule, cut_graph, recursive_ncut
from walkcut.segmentation.refine import Scores, assign_pixels, score_leaves, snap_labels
from walkcut.segmentation.tree import CutTree, grow_tree

Method = Literal["merge", "ncut", "ncut+merge", "diffcut"]

_MOST_MERGED_LEAVES = 256  # far beyond what anyone asks for; smaller ones are texture
_MOST_PATCHES = 64  # along the longest side; features finer than that are averaged before they are cut

REVISION = 1  # raise it when the same recipe gives other trees


@dataclass(frozen=True)
class LevelBound:
    """A named level: all cuts that cost at most `tau`, but no fewer than `fewest` and no more than `most` segments."""

    tau: float
    fewest: int
    most: int


@dataclass(frozen=True)
class Recipe:
    """What is done with the evidence.

    `merge` joins the watershed leaves of the contour bottom-up; `ncut` cuts the attention's random walk top-down, with
    the `affinity` of `walk_steps` steps, the stopping `rule` and at most `max_leaves`; `ncut+merge` joins the leaves of
    `ncut` bottom-up; `diffcut` cuts the features' affinity, sharpened by `exponent`, with the same rule and bound.
    """

    method: Method = "merge"
    affinity: Affinity = "dot"
    walk_steps: int = 1
    rule: StoppingRule = field(default_factory=ManC)
    exponent: float = 10
    max_leaves: int = 64

    @property
    def parts(self) -> frozenset[Part]:
        """What evidence the method needs."""
        needs: dict[Method, frozenset[Part]] = {
            "merge": frozenset({"contour", "features"}),
            "ncut": frozenset({"maps"}),
            "ncut+merge": frozenset({"contour", "features", "maps"}),
            "diffcut": frozenset({"features"}),
        }
        return needs[self.method]


# The settings of the papers, by name.
RECIPES: Mapping[str, Recipe] = {
    "merge": Recipe("merge"),
    "ncut": Recipe("ncut"),
    "ncut+merge": Recipe("ncut+merge"),
    "diffcut": Recipe("diffcut", rule=FixedThreshold(0.5)),
}


def read_recipe(name: str) -> Recipe:
    """The recipe of this name. Raises `SettingsError` for one that there is none of."""
    if name not in RECIPES:
        raise SettingsError(f"no method {name!r}: choose one of {', '.join(RECIPES)}")
    return RECIPES[name]


# Named levels per method: about 4, 10 and 22 segments at the median of BSDS500 val,
# with the embedded extractor.
LEVELS: Mapping[Method, Mapping[Level, LevelBound]] = {
    "merge": {
        Level.COARSE: LevelBound(0.27, 2, 8),
        Level.MEDIUM: LevelBound(0.46, 4, 20),
        Level.FINE: LevelBound(0.63, 8, 40),
    },
    "ncut": {
        Level.COARSE: LevelBound(0.2, 2, 8),
        Level.MEDIUM: LevelBound(0.48, 4, 20),
        Level.FINE: LevelBound(0.72, 8, 40),
    },
    "diffcut": {
        Level.COARSE: LevelBound(0.16, 2, 8),
        Level.MEDIUM: LevelBound(0.3, 4, 20),
        Level.FINE: LevelBound(0.4, 8, 40),
    },
}


@dataclass(frozen=True)
class Segmenter:
    """An extractor and a recipe, on a device: the whole way from picture to cut tree."""

    extractor: Extractor
    recipe: Recipe = field(default_factory=Recipe)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def version(self) -> str:
        """Eight hexadecimal digits that change with anything that changes trees."""
        identity = f"{REVISION} {self.extractor.version} {self.recipe}"
        return hashlib.sha256(identity.encode()).hexdigest()[:8]

    def tree(self, image: UInt8[np.ndarray, "y x 3"]) -> CutTree:
        """The cut tree of an upright sRGB picture."""
        picture = torch.tensor(image, device=self.device)
        evidence = self.extractor.extract(picture, self.recipe.parts)
        if self.recipe.method == "merge":
            contour, _ = _outlines(evidence)
            return _merged(watershed_leaves(contour), evidence, picture)
        scores, hierarchy = _cut(evidence, self.recipe)
        if self.recipe.method != "ncut+merge":
            labels = assign_pixels(scores, (image.shape[0], image.shape[1]))
            return grow_tree(labels, hierarchy, named_levels(hierarchy, self.recipe.method), scores)
        contour, _ = _outlines(evidence)
        leaves = assign_pixels(scores, (contour.shape[0], contour.shape[1]))
        return _merged(renumber(leaves.astype(np.int64)), evidence, picture)


def _merged(leaves: Int64[np.ndarray, "h w"], evidence: Evidence, picture: UInt8[Tensor, "y x 3"]) -> CutTree:
    """The tree of these leaves joined bottom-up."""
    contour, features = _outlines(evidence)
    merged = merge_leaves(leaves, contour, features)
    distinct = 1 + int((merged.costs < 1).sum())  # what costs 1 to cut differs by rounding alone
    leaf_of, hierarchy = merged.coarsened(min(distinct, _MOST_MERGED_LEAVES))
    return grow_tree(snap_labels(leaf_of[leaves], picture), hierarchy, named_levels(hierarchy, "merge"))


def _cut(evidence: Evidence, recipe: Recipe) -> tuple[Scores, Hierarchy]:
    """The patches' graph cut top-down: the leaves' scores and their hierarchy."""
    if recipe.method == "diffcut":
        F, grid = _unit_features(evidence)
        A = power_affinity(F, recipe.exponent)
        leaf_of, hierarchy = cut_graph(A, rule=recipe.rule, max_leaves=recipe.max_leaves)
    else:
        F, grid = _walk(evidence, recipe.walk_steps)
        leaf_of, hierarchy = recursive_ncut(F, affinity=recipe.affinity, rule=recipe.rule, max_leaves=recipe.max_leaves)
    return score_leaves(F, torch.from_numpy(leaf_of).to(F.device), grid), hierarchy


def _walk(evidence: Evidence, steps: int) -> tuple[Float[Tensor, "n n"], tuple[int, int]]:
    """So many steps of the aggregated attention's walk, and its grid, the finest of all levels."""
    if not evidence.maps:
        raise SegmentationError("this model has no attention maps: choose the method merge, or another model")
    grids = [level.grid for level in evidence.maps]
    grid = max(grids, key=lambda sides: sides[0] * sides[1])
    return walk(aggregate([level.weights for level in evidence.maps], grids, grid), steps), grid


def _unit_features(evidence: Evidence) -> tuple[Float[Tensor, "n c"], tuple[int, int]]:
    """Each patch's features at length one, and their grid."""
    if evidence.features is None:
        raise SegmentationError("this model has no features: choose the method ncut, or another model")
    _, height, width = evidence.features.shape
    scale = min(1.0, _MOST_PATCHES / max(height, width))
    grid = max(1, round(height * scale)), max(1, round(width * scale))
    return normalize(adaptive_avg_pool2d(evidence.features, grid).flatten(1).T.float(), dim=1), grid


def _outlines(evidence: Evidence) -> tuple[Tensor, Tensor]:
    """The contour map and the features of the same size."""
    if evidence.contour is None or evidence.features is None:
        raise SegmentationError("this model has no contour map: choose the method ncut, or the model embedded")
    return evidence.contour, evidence.features


def named_levels(hierarchy: Hierarchy, method: Method) -> dict[Level, int]:
    """How many segments coarse, medium and fine mean for this picture."""
    return {
        level: min(max(1 + int((hierarchy.costs <= bound.tau).sum()), bound.fewest), bound.most, hierarchy.leaves)
        for level, bound in LEVELS[method].items()
    }
