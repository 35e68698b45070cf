"""Segmenters: from an image to its cut tree."""

import hashlib
import logging
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from walkcut.backbones import Backbone, ImageFeatures, Weights, load_backbone
from walkcut.backbones.classical import ClassicalBackbone
from walkcut.backbones.devices import make_device, make_dtype
from walkcut.errors import SettingsError
from walkcut.hierarchy.cut_tree import CutTree, build_tree
from walkcut.hierarchy.descriptors import leaf_means
from walkcut.models import CLASSICAL, choose_model
from walkcut.segmentation.algorithms.pamr import Pamr, refine_labels
from walkcut.segmentation.methods.hierarchical import distinct_levels
from walkcut.segmentation.presets import PRESETS, Preset, find_preset
from walkcut.telemetry.spans import span

_log = logging.getLogger(__name__)

REVISION = 4  # raise it when the same preset gives other trees


@dataclass(frozen=True)
class Segmenter:
    """A backbone and a preset on a device. Raises `SettingsError` if the method needs features that the model lacks."""

    backbone: Backbone
    preset: Preset
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def __post_init__(self) -> None:
        if lacking := self.preset.method.requires - self.backbone.provides:
            kinds = " and ".join(sorted(lacking)).replace("_", " ")
            fitting = [name for name, preset in PRESETS.items() if preset.method.requires <= self.backbone.provides]
            raise SettingsError(
                f"the method {self.preset.name} needs {kinds}, which this model does not provide: "
                f"choose one of {', '.join(fitting)}, or the model classical"
            )

    @property
    def version(self) -> str:
        """Eight hexadecimal digits that change with everything that changes trees."""
        models = f"{self.backbone.version} {self._descriptor_backbone.version}"
        identity = f"{REVISION} {models} {replace(self.preset, name='')}"
        return hashlib.sha256(identity.encode()).hexdigest()[:8]

    def segment(self, image: UInt8[np.ndarray, "y x 3"]) -> CutTree:
        """Return the cut tree of an upright sRGB image of at least 16×16 pixels."""
        pixels = torch.tensor(image, device=self.device)
        features = self._extract(pixels)
        tree = self._cut_or_move_to_cpu(features, pixels)
        if features.feature_map is None:
            return tree
        return replace(tree, descriptors=leaf_means(tree.leaves, features.feature_map.float().numpy(force=True)))

    def check_device(self) -> None:
        """Raise `RuntimeError` if CUDA is broken: after a fault all its work fails until the process ends."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    @property
    def _descriptor_backbone(self) -> Backbone:
        """The backbone whose feature map describes segments: the model itself if the method needs one anyway."""
        return self.backbone if "feature_map" in self.preset.method.requires else ClassicalBackbone()

    def _extract(self, image: UInt8[Tensor, "y x 3"]) -> ImageFeatures:
        """Return the features that the method needs, and a feature map to describe segments."""
        requires = self.preset.method.requires
        if self._descriptor_backbone == self.backbone:
            return self.backbone.extract(image, requires | {"feature_map"})
        described = self._descriptor_backbone.extract(image.cpu(), frozenset({"feature_map"}))
        return self.backbone.extract(image, requires).merged_with(described)

    def _cut_or_move_to_cpu(self, features: ImageFeatures, image: UInt8[Tensor, "y x 3"]) -> CutTree:
        """Return the cut tree, computed on the CPU if the device runs out of memory."""
        try:
            return replace(self._cut(features, image), degradations=features.degradations)
        except torch.OutOfMemoryError:
            _log.warning("out of memory on %s: cutting on the CPU", self.device)
        # Outside `except`, where the error would still hold the tensors of the attempt.
        tree = self._cut(features.to(torch.device("cpu")), image.cpu())
        return replace(tree, degradations=(*features.degradations, "cut on the CPU"))

    def _cut(self, features: ImageFeatures, image: UInt8[Tensor, "y x 3"]) -> CutTree:
        tree = self.preset.method.build_tree(features, image)
        return tree if self.preset.pamr is None else refine_tree(tree, image, self.preset.pamr)


def load_segmenter(
    model: str, method: str = "", *, device: torch.device | None = None, weights: Weights | None = None
) -> Segmenter:
    """Return the segmenter of a model and a preset, by default the best one for the model.

    `model` is as for `load_backbone`. Raises `SettingsError` for an unknown model or preset, for missing weights, and
    for a preset that does not fit the model.

    >>> from walkcut import parse_granularity
    >>> image = np.zeros((32, 48, 3), np.uint8)
    >>> image[:, 24:] = 255
    >>> tree = load_segmenter("classical").segment(image)
    >>> tree.labels(parse_granularity("2"))[16, [0, 23, 24, 47]].tolist()
    [0, 0, 1, 1]
    """
    device = device or torch.device("cpu")
    preset = find_preset(method) if method else None
    attention = preset.attention if preset else None
    backbone = load_backbone(model, device=device, weights=weights, attention=attention)
    default = PRESETS["merge" if "contour" in backbone.provides else "ncut"]
    return Segmenter(backbone, preset or default, device)


def load_configured_segmenter(
    model: str, method: str, *, device: str, dtype: str, weights_dir: Path | None, random_weights: bool = False
) -> Segmenter:
    """Return a segmenter, device and precision given by name; the classical model ignores folder and precision."""
    weights = Weights(weights_dir, make_dtype(dtype), random_weights)
    if choose_model(model, weights_dir) == CLASSICAL and not random_weights:
        weights = Weights()
    return load_segmenter(model, method, device=make_device(device), weights=weights)


def refine_tree(tree: CutTree, image: UInt8[Tensor, "y x 3"], settings: Pamr) -> CutTree:
    """Return the tree with borders of leaves refined by PAMR; leaves that lose all their pixels are dropped."""
    leaves = torch.from_numpy(tree.leaves.astype(np.int64)).to(image.device)
    channels = image.permute(2, 0, 1) / 255
    with span("refine"):
        leaves = refine_labels(leaves, channels, settings)
    refined = build_tree(leaves.numpy(force=True), tree.hierarchy, tree.levels)
    if refined.hierarchy.leaf_count == tree.hierarchy.leaf_count:
        return refined
    return replace(refined, levels=distinct_levels(tree.levels, refined.hierarchy))
