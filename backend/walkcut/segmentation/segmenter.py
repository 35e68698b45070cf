"""An image in, its cut tree out."""

import hashlib
import logging
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from walkcut.backbones import Backbone, ImageFeatures, Weights, load_backbone
from walkcut.backbones.classical import ClassicalBackbone
from walkcut.errors import SettingsError
from walkcut.hierarchy.cut_tree import CutTree, build_tree
from walkcut.hierarchy.descriptors import leaf_means
from walkcut.segmentation.algorithms.pamr import refine_labels
from walkcut.segmentation.presets import PRESETS, Pamr, Preset, find_preset
from walkcut.telemetry.spans import span

log = logging.getLogger(__name__)

REVISION = 3  # raise it when the same preset gives other trees


@dataclass(frozen=True)
class Segmenter:
    """A backbone and a preset, on a device: the whole way from image to cut tree.

    Raises `SettingsError` for a method that needs what the model does not offer.
    """

    backbone: Backbone
    preset: Preset
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def __post_init__(self) -> None:
        if lacking := self.preset.method.requires - self.backbone.provides:
            fitting = [name for name, preset in PRESETS.items() if preset.method.requires <= self.backbone.provides]
            raise SettingsError(
                f"the method {self.preset.name} needs {' and '.join(sorted(lacking))}, which this model does not give: "
                f"choose one of {', '.join(fitting)}, or the model classical"
            )

    @property
    def version(self) -> str:
        """Eight hexadecimal digits that change with anything that changes trees."""
        models = f"{self.backbone.version} {self._describer.version}"
        identity = f"{REVISION} {models} {replace(self.preset, name='')}"
        return hashlib.sha256(identity.encode()).hexdigest()[:8]

    def segment(self, image: UInt8[np.ndarray, "y x 3"]) -> CutTree:
        """The cut tree of an upright sRGB image."""
        pixels = torch.tensor(image, device=self.device)
        image_features = self._image_features(pixels)
        tree = self._cut_somewhere(image_features, pixels)
        if image_features.features is None:
            return tree
        features = image_features.features.float().numpy(force=True)
        return replace(tree, descriptors=leaf_means(tree.leaves, features))

    def check_device(self) -> None:
        """Raise `RuntimeError` if the device is broken: after a fault of CUDA all its work fails until the process ends."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    @property
    def _describer(self) -> Backbone:
        """Whose features say how segments look: the model's, where the method needs them anyway."""
        return self.backbone if "features" in self.preset.method.requires else ClassicalBackbone()

    def _image_features(self, image: UInt8[Tensor, "y x 3"]) -> ImageFeatures:
        """What the method needs, and features to describe segments by."""
        requires = self.preset.method.requires
        if self._describer == self.backbone:
            return self.backbone.extract(image, requires | {"features"})
        features = self._describer.extract(image.cpu(), frozenset({"features"}))
        return self.backbone.extract(image, requires).merged_with(features)

    def _cut_somewhere(self, image_features: ImageFeatures, image: UInt8[Tensor, "y x 3"]) -> CutTree:
        """The cut tree, on the CPU where memory is too short elsewhere."""
        try:
            return replace(self._cut(image_features, image), degradations=image_features.degradations)
        except torch.OutOfMemoryError:
            log.warning("out of memory on %s: cutting on the CPU", self.device)
        # Not within `except`, where the error still holds the tensors of the attempt.
        tree = self._cut(image_features.to(torch.device("cpu")), image.cpu())
        return replace(tree, degradations=(*image_features.degradations, "cut on the CPU"))

    def _cut(self, image_features: ImageFeatures, image: UInt8[Tensor, "y x 3"]) -> CutTree:
        """The cut tree of this evidence."""
        tree = self.preset.method.build_tree(image_features, image)
        return tree if self.preset.pamr is None else refine_tree(tree, image, self.preset.pamr)


def load_segmenter(
    model: str, method: str = "", *, device: torch.device | None = None, weights: Weights | None = None
) -> Segmenter:
    """The segmenter of a model and the name of a preset; without one, the best of those that the model can serve.

    Raises `SettingsError` for a model or a preset that cannot be had, or that do not fit.
    """
    device = device or torch.device("cpu")
    if method:
        preset = find_preset(method)
        return Segmenter(
            load_backbone(model, device=device, weights=weights, attention=preset.attention), preset, device
        )
    backbone = load_backbone(model, device=device, weights=weights)
    return Segmenter(backbone, PRESETS["merge" if "contour" in backbone.provides else "ncut"], device)


def refine_tree(tree: CutTree, image: UInt8[Tensor, "y x 3"], settings: Pamr) -> CutTree:
    """The tree with its leaves' borders refined by PAMR; leaves that lose all their pixels are left out."""
    leaves = torch.from_numpy(tree.leaves.astype(np.int64)).to(image.device)
    channels = image.permute(2, 0, 1) / 255
    with span("refine"):
        leaves = refine_labels(leaves, channels, iterations=settings.iterations, dilations=settings.dilations)
    return build_tree(leaves.cpu().numpy(), tree.hierarchy, tree.levels)
