"""A picture in, its cut tree out."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from walkcut.errors import SegmentationError, SettingsError
from walkcut.extraction import Evidence, Extractor, Part
from walkcut.segmentation.attention import aggregate, walk
from walkcut.segmentation.granularity import Level
from walkcut.segmentation.hierarchy import Hierarchy, renumber
from walkcut.segmentation.merge import merge_leaves, watershed_leaves
from walkcut.segmentation.ncut import Affinity, ManC, StoppingRule, recursive_ncut
from walkcut.segmentation.refine import Scores, assign_pixels, score_leaves, snap_labels
from walkcut.segmentation.tree import CutTree, grow_tree

Method = Literal["merge", "ncut", "ncut+merge"]
METHODS: tuple[Method, ...] = ("merge", "ncut", "ncut+merge")

_MOST_MERGED_LEAVES = 256  # far beyond what anyone asks for; smaller ones are texture

REVISION = 1  # raise it when the same recipe gives other trees


def read_method(name: str) -> Method:
    """The method of this name. Raises `SettingsError` for one that there is none of."""
    for method in METHODS:
        if method == name:
            return method
    raise SettingsError(f"no method {name!r}: choose one of {', '.join(METHODS)}")


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
    `ncut` bottom-up.
    """

    method: Method = "merge"
    affinity: Affinity = "dot"
    walk_steps: int = 1
    rule: StoppingRule = field(default_factory=ManC)
    max_leaves: int = 64

    @property
    def parts(self) -> frozenset[Part]:
        """What evidence the method needs."""
        needs: dict[Method, frozenset[Part]] = {
            "merge": frozenset({"contour", "features"}),
            "ncut": frozenset({"maps"}),
            "ncut+merge": frozenset({"contour", "features", "maps"}),
        }
        return needs[self.method]


# Named levels per way to a tree: about 4, 10 and 22 segments at the median of BSDS500 val.
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
        scores, hierarchy = _cut_patches(evidence, self.recipe)
        if self.recipe.method == "ncut":
            labels = assign_pixels(scores, (image.shape[0], image.shape[1]))
            return grow_tree(labels, hierarchy, named_levels(hierarchy, "ncut"), scores)
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


def _cut_patches(evidence: Evidence, recipe: Recipe) -> tuple[Scores, Hierarchy]:
    """Aggregate, walk and cut: the leaves' scores and their hierarchy."""
    if not evidence.maps:
        raise SegmentationError("this model has no attention maps: choose the method merge, or another model")
    grids = [level.grid for level in evidence.maps]
    grid = max(grids, key=lambda sides: sides[0] * sides[1])
    P = walk(aggregate([level.weights for level in evidence.maps], grids, grid), recipe.walk_steps)
    leaf_of, hierarchy = recursive_ncut(P, affinity=recipe.affinity, rule=recipe.rule, max_leaves=recipe.max_leaves)
    return score_leaves(P, torch.from_numpy(leaf_of).to(P.device), grid), hierarchy


def _outlines(evidence: Evidence) -> tuple[Tensor, Tensor]:
    """The contour map and the features of the same size."""
    if evidence.contour is None or evidence.features is None:
        raise SegmentationError("this model has no contour map: choose the method ncut, or the model embedded")
    return evidence.contour, evidence.features


def named_levels(hierarchy: Hierarchy, method: Literal["merge", "ncut"]) -> dict[Level, int]:
    """How many segments coarse, medium and fine mean for this picture."""
    return {
        level: min(max(1 + int((hierarchy.costs <= bound.tau).sum()), bound.fewest), bound.most, hierarchy.leaves)
        for level, bound in LEVELS[method].items()
    }
