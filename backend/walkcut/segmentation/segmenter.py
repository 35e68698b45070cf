"""A picture in, its cut tree out."""

import hashlib
import logging
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from walkcut.backbones import Evidence, Extractor, Weights, load_extractor
from walkcut.backbones.classical import EmbeddedExtractor
from walkcut.errors import SettingsError
from walkcut.hierarchy.cut_tree import CutTree, grow_tree
from walkcut.hierarchy.descriptors import leaf_means
from walkcut.segmentation.algorithms.pamr import refine_labels
from walkcut.segmentation.presets import RECIPES, Pamr, Recipe, read_recipe
from walkcut.telemetry.stages import stage

log = logging.getLogger(__name__)

REVISION = 3  # raise it when the same recipe gives other trees


@dataclass(frozen=True)
class Segmenter:
    """An extractor and a recipe, on a device: the whole way from picture to cut tree.

    Raises `SettingsError` for a method that needs what the model does not offer.
    """

    extractor: Extractor
    recipe: Recipe
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def __post_init__(self) -> None:
        if lacking := self.recipe.method.parts - self.extractor.offers:
            fitting = [name for name, recipe in RECIPES.items() if recipe.method.parts <= self.extractor.offers]
            raise SettingsError(
                f"the method {self.recipe.name} needs {' and '.join(sorted(lacking))}, which this model does not give: "
                f"choose one of {', '.join(fitting)}, or the model embedded"
            )

    @property
    def version(self) -> str:
        """Eight hexadecimal digits that change with anything that changes trees."""
        models = f"{self.extractor.version} {self._describer.version}"
        identity = f"{REVISION} {models} {replace(self.recipe, name='')}"
        return hashlib.sha256(identity.encode()).hexdigest()[:8]

    def tree(self, image: UInt8[np.ndarray, "y x 3"]) -> CutTree:
        """The cut tree of an upright sRGB picture."""
        picture = torch.tensor(image, device=self.device)
        evidence = self._evidence(picture)
        tree = self._cut_somewhere(evidence, picture)
        if evidence.features is None:
            return tree
        return replace(tree, descriptors=leaf_means(tree.leaves, evidence.features))

    @property
    def _describer(self) -> Extractor:
        """Whose features say how segments look: the model's, where the method needs them anyway."""
        return self.extractor if "features" in self.recipe.method.parts else EmbeddedExtractor()

    def _evidence(self, picture: UInt8[Tensor, "y x 3"]) -> Evidence:
        """What the method needs, and features to describe segments by."""
        parts = self.recipe.method.parts
        if self._describer == self.extractor:
            return self.extractor.extract(picture, parts | {"features"})
        features = self._describer.extract(picture.cpu(), frozenset({"features"}))
        return self.extractor.extract(picture, parts).joined(features)

    def _cut_somewhere(self, evidence: Evidence, picture: UInt8[Tensor, "y x 3"]) -> CutTree:
        """The cut tree, on the CPU where memory is too short elsewhere."""
        try:
            return replace(self._cut(evidence, picture), concessions=evidence.concessions)
        except torch.OutOfMemoryError:
            log.warning("out of memory on %s: cutting on the CPU", self.device)
        # Not within `except`, where the error still holds the tensors of the attempt.
        tree = self._cut(evidence.to(torch.device("cpu")), picture.cpu())
        return replace(tree, concessions=(*evidence.concessions, "cut on the CPU"))

    def _cut(self, evidence: Evidence, picture: UInt8[Tensor, "y x 3"]) -> CutTree:
        """The cut tree of this evidence."""
        tree = self.recipe.method.tree(evidence, picture)
        return tree if self.recipe.pamr is None else refine_tree(tree, picture, self.recipe.pamr)


def load_segmenter(
    model: str, method: str = "", *, device: torch.device | None = None, weights: Weights | None = None
) -> Segmenter:
    """The segmenter of a model and the name of a recipe; without one, the best of those that the model can serve.

    Raises `SettingsError` for a model or a recipe that cannot be had, or that do not fit.
    """
    device = device or torch.device("cpu")
    if method:
        recipe = read_recipe(method)
        return Segmenter(
            load_extractor(model, device=device, weights=weights, attention=recipe.attention), recipe, device
        )
    extractor = load_extractor(model, device=device, weights=weights)
    return Segmenter(extractor, RECIPES["merge" if "contour" in extractor.offers else "ncut"], device)


def refine_tree(tree: CutTree, picture: UInt8[Tensor, "y x 3"], settings: Pamr) -> CutTree:
    """The tree with its leaves' borders refined by PAMR; leaves that lose all their pixels are left out."""
    leaves = torch.from_numpy(tree.leaves.astype(np.int64)).to(picture.device)
    image = picture.permute(2, 0, 1) / 255
    with stage("refine"):
        leaves = refine_labels(leaves, image, iterations=settings.iterations, dilations=settings.dilations)
    return grow_tree(leaves.cpu().numpy(), tree.hierarchy, tree.levels)
