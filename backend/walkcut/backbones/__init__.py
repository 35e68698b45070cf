"""Backbones: models that extract features from an image, on which methods segment it."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from walkcut.backbones.configs import DWC, AttentionConfig
from walkcut.errors import SettingsError
from walkcut.hierarchy.merge_rule import MergeRule
from walkcut.models import CLASSICAL, DINO, HED, choose_model, is_onnx, split_pair

FeatureKind = Literal["attention_maps", "feature_map", "contour"]


@dataclass(frozen=True)
class AttentionMap:
    """Self-attention between the patches of one grid (height, width), averaged over heads and layers.

    Row `i` of `weights` is the attention of patch `i` to all patches, and sums to 1; patches are in reading order.
    """

    grid: tuple[int, int]
    weights: Float[Tensor, "n n"]


@dataclass(frozen=True)
class ImageFeatures:
    """Features of one image, on the device that computed them; kinds that were not requested are empty or `None`.

    Attributes:
        attention_maps: one for each resolution
        feature_map: a vector for each patch or pixel, comparable across images
        contour: the strength of contours, in [0, 1]
        degradations: quality reductions due to memory, as user messages
        merge_rule: how regions between these contours merge
        contour_error: how far contours may lie beside the image's edges, in pixels of the contour map
        embedding: learned features at the size of the contour, whose distance the rule weighs beside the histograms'
    """

    attention_maps: tuple[AttentionMap, ...] = ()
    feature_map: Float[Tensor, "c h w"] | None = None
    contour: Float[Tensor, "y x"] | None = None
    degradations: tuple[str, ...] = ()
    merge_rule: MergeRule = field(default_factory=MergeRule)
    contour_error: int = 0
    embedding: Float[Tensor, "d y x"] | None = None

    def merged_with(self, other: "ImageFeatures") -> "ImageFeatures":
        """Return these features, completed by those of the other."""
        return ImageFeatures(
            self.attention_maps or other.attention_maps,
            other.feature_map if self.feature_map is None else self.feature_map,
            other.contour if self.contour is None else self.contour,
            tuple(dict.fromkeys((*self.degradations, *other.degradations))),
            other.merge_rule if self.contour is None else self.merge_rule,
            other.contour_error if self.contour is None else self.contour_error,
            other.embedding if self.embedding is None else self.embedding,
        )

    def to(self, device: torch.device) -> "ImageFeatures":
        """Return the features on another device."""
        return replace(
            self,
            attention_maps=tuple(AttentionMap(level.grid, level.weights.to(device)) for level in self.attention_maps),
            feature_map=None if self.feature_map is None else self.feature_map.to(device),
            contour=None if self.contour is None else self.contour.to(device),
            embedding=None if self.embedding is None else self.embedding.to(device),
        )


@runtime_checkable
class Backbone(Protocol):
    """Extracts features from images."""

    @property
    def version(self) -> str:
        """Text that changes whenever the features change; part of the model version."""

    @property
    def provides(self) -> frozenset[FeatureKind]:
        """The kinds of features that it can extract."""

    def extract(self, image: UInt8[Tensor, "y x 3"], kinds: frozenset[FeatureKind]) -> ImageFeatures:
        """Return the features of an upright sRGB image of at least 16×16 pixels; kinds not provided stay empty."""


@dataclass(frozen=True)
class Weights:
    """Weights of a model: the folder (by default the hub's cache), the precision, and whether to use random ones."""

    folder: Path | None = None
    dtype: torch.dtype = torch.float32
    random: bool = False


def load_backbone(
    name: str,
    *,
    device: torch.device | None = None,
    weights: Weights | None = None,
    attention: AttentionConfig | None = None,
) -> Backbone:
    """Return the backbone of this name.

    That is one of `MODELS`, a folder of a diffusion model, its id on the hub, the path of an ONNX file, or a pair of
    them such as `hed+dino`. `attention` configures which self-attention of a diffusion model is read, by default as in
    DWC; other models ignore it, and an ONNX file holds its own weights and precision. Nothing is downloaded. Raises
    `SettingsError` for a model that is not on this machine, with the command that fetches it.
    """
    weights = weights or Weights()
    name = choose_model(name, weights.folder)
    if name == CLASSICAL:
        from walkcut.backbones.classical import ClassicalBackbone  # noqa: PLC0415 - models are loaded when chosen

        if weights != Weights():
            raise SettingsError(
                "the model classical has no weights: do not set their folder, their precision or random weights"
            )
        return ClassicalBackbone()
    device = device or torch.device("cpu")
    if pair := split_pair(name):
        from walkcut.backbones.combined import load_pair  # noqa: PLC0415

        return load_pair(*pair, device=device, weights=weights, attention=attention)
    if is_onnx(name):
        from walkcut.backbones.onnx_model import load_onnx  # noqa: PLC0415

        return load_onnx(Path(name).expanduser())
    if name == HED:
        from walkcut.backbones.hed import load_hed  # noqa: PLC0415

        return load_hed(weights, device)
    if name == DINO:
        from walkcut.backbones.dino import load_dino  # noqa: PLC0415

        return load_dino(weights, device)
    from walkcut.backbones.diffusion import load_diffusion  # noqa: PLC0415 - diffusers takes seconds to import

    return load_diffusion(name, weights, device, attention or DWC)
