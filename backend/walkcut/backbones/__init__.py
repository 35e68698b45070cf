"""What a model, or the image itself, says about which places belong together."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from walkcut.backbones.presets import DWC, AttentionConfig
from walkcut.errors import SettingsError

FeatureKind = Literal["maps", "features", "contour"]


@dataclass(frozen=True)
class AttentionMap:
    """Self-attention at one resolution, averaged over heads and layers.

    Row `i` of `weights` says where patch `i` looks; rows sum to one; patches are numbered row by row.
    """

    grid: tuple[int, int]
    weights: Float[Tensor, "n n"]


@dataclass(frozen=True)
class ImageFeatures:
    """What a backbone found; parts that were not asked for are empty or `None`.

    `features` are comparable between images; `contour` is in [0, 1], high where regions end. `degradations` tell a
    user what was given up for lack of memory. Tensors lie on the device where they were computed.
    """

    maps: tuple[AttentionMap, ...] = ()
    features: Float[Tensor, "c h w"] | None = None
    contour: Float[Tensor, "y x"] | None = None
    degradations: tuple[str, ...] = ()

    def merged_with(self, other: "ImageFeatures") -> "ImageFeatures":
        """This and the parts that it lacks."""
        return ImageFeatures(
            self.maps or other.maps,
            other.features if self.features is None else self.features,
            other.contour if self.contour is None else self.contour,
            tuple(dict.fromkeys((*self.degradations, *other.degradations))),
        )

    def to(self, device: torch.device) -> "ImageFeatures":
        """The same on another device."""
        features, contour = (part if part is None else part.to(device) for part in (self.features, self.contour))
        maps = tuple(AttentionMap(level.grid, level.weights.to(device)) for level in self.maps)
        return ImageFeatures(maps, features, contour, self.degradations)


@runtime_checkable
class Backbone(Protocol):
    """Anything that turns an image into evidence; `version` changes when its answers do."""

    @property
    def version(self) -> str:
        """Name and revision, part of the model version."""
        ...

    @property
    def provides(self) -> frozenset[FeatureKind]:
        """The parts of evidence that it can give; others stay empty though they are asked for."""
        ...

    def extract(self, image: UInt8[Tensor, "y x 3"], parts: frozenset[FeatureKind]) -> ImageFeatures:
        """The evidence's `parts` of an upright sRGB image of any size from 16×16."""
        ...


CLASSICAL = "classical"
DINO = "dino"
MODELS = (CLASSICAL, "sd14", "sd15", "sd21", "ssd1b", "sdxl", DINO)


@dataclass(frozen=True)
class Weights:
    """Where a model's weights are and how they are held: a folder (else the hub's cache), precision, or random ones."""

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
    """The backbone of this name: one of `MODELS`, a folder of a diffusion model, or its id on the hub.

    `attention` says how the self-attention of a diffusion model is read, DWC's way by default; the models classical and
    dino can be read in one way only, and are read in that way. Nothing is downloaded. Raises `SettingsError` for a
    model that is not there, saying what to fetch.
    """
    weights = weights or Weights()
    if name == CLASSICAL:
        from walkcut.backbones.classical import ClassicalBackbone  # noqa: PLC0415 - models are loaded when chosen

        if weights != Weights():
            raise SettingsError("the model classical has no weights: leave folder, precision and random weights alone")
        return ClassicalBackbone()
    device = device or torch.device("cpu")
    if name == DINO:
        from walkcut.backbones.dino import load_dino  # noqa: PLC0415

        return load_dino(device=device, dtype=weights.dtype, weights=weights.folder, random_weights=weights.random)
    from walkcut.backbones.diffusion import load_diffusion  # noqa: PLC0415 - diffusers takes seconds to import

    return load_diffusion(
        name,
        device=device,
        dtype=weights.dtype,
        weights=weights.folder,
        random_weights=weights.random,
        attention=attention or DWC,
    )
