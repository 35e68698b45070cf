"""Evidence from text-to-image diffusion models: Stable Diffusion 1.x and 2.x, SSD-1B, SDXL."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from walkcut.errors import SettingsError
from walkcut.extraction import AttentionMap, Evidence, Part
from walkcut.extraction.capture import (
    Projections,
    capture_attention,
    capture_output,
    check_finite,
    self_attention_layers,
)
from walkcut.extraction.diffusion_model import DiffusionModel, load_model, random_model
from walkcut.extraction.models import find_architecture

_REVISION = 1  # raise it when the same settings give other evidence


@dataclass(frozen=True)
class AttentionPass:
    """Which self-attention is read, and when.

    A level of 64 has 64 patches on 512 pixels; levels that a model lacks are left out. `layers` are those of the
    `decoder` with the middle block, or `all`. With `inverted`, the latent is brought to the timestep by DDIM inversion,
    20 of the 1000 timesteps at a time; without, the pass sees the picture's latent as it is.
    """

    levels: tuple[int, ...]
    layers: Literal["decoder", "all"]
    timestep: int
    inverted: bool = False


@dataclass(frozen=True)
class FeaturePass:
    """At which timestep features are read, and the seed of the noise that is added."""

    timestep: int
    seed: int


# Step 40, counted from 0, of DDIM's 50 steps 981, 961 … 1; ten steps of inversion end just there (DWC 3.1, table 7).
DWC = AttentionPass((16, 32, 64), "decoder", 181)
DIFFSEG = AttentionPass((8, 16, 32, 64), "all", 300)  # DiffSeg 3.2 and table 3
DIFFCUT = FeaturePass(50, 42)  # DiffCut 4, and its authors' program


@dataclass(frozen=True)
class DiffusionExtractor:
    """Self-attention and features of a diffusion model that is shown the picture with the empty prompt.

    Features are the output of the encoder's last self-attention layer (DiffCut 3.1). There is no contour.
    """

    model: DiffusionModel
    attention: AttentionPass = DWC
    features: FeaturePass = DIFFCUT

    @property
    def version(self) -> str:
        """Revision, model, precision and settings."""
        return f"diffusion-{_REVISION} {self.model.version} {self.model.unet.dtype} {self.attention} {self.features}"

    def extract(self, image: UInt8[Tensor, "y x 3"], parts: frozenset[Part]) -> Evidence:
        """One map for each level of `attention`, and features, each from a pass of its own."""
        return self.extract_batch(image[None], parts)[0]

    @torch.no_grad()
    def extract_batch(self, images: UInt8[Tensor, "b y x 3"], parts: frozenset[Part]) -> tuple[Evidence, ...]:
        """The evidence of pictures of one size, from passes that they share."""
        latents = self.model.encode(images) if parts & {"maps", "features"} else None
        maps: tuple[tuple[AttentionMap, ...], ...] = ((),) * len(images)
        features: tuple[Tensor | None, ...] = (None,) * len(images)
        if latents is not None and "maps" in parts:
            maps = self._maps(latents)
        if latents is not None and "features" in parts:
            features = tuple(self._features(latents))
        return tuple(Evidence(maps=own, features=some) for own, some in zip(maps, features, strict=True))

    def _maps(self, latents: Float[Tensor, "b 4 h w"]) -> tuple[tuple[AttentionMap, ...], ...]:
        depths = attention_layers(self.model, self.attention)
        if self.attention.inverted:
            latents = self.model.invert(latents, self.attention.timestep)
        with capture_attention(depths) as averages:
            self.model.predict(latents, self.attention.timestep)
        grids = {depth: _grid(latents, depth) for depth in depths}
        for average in averages.values():
            check_finite(average, self.version)
        return tuple(
            tuple(
                AttentionMap(grids[depth], average[index]) for depth, average in sorted(averages.items(), reverse=True)
            )
            for index in range(len(latents))
        )

    def _features(self, latents: Float[Tensor, "b 4 h w"]) -> Float[Tensor, "b c y x"]:
        encoder = [layer for layer in self_attention_layers(self.model.unet) if layer.place == "encoder"]
        if not encoder:
            raise SettingsError(f"the encoder of {self.model.version} has no self-attention: choose another model")
        noisy = self.model.add_noise(latents, self.features.timestep, self.features.seed)
        with capture_output(encoder[-1].module) as outputs:
            self.model.predict(noisy, self.features.timestep)
        features = outputs[0].float().mT.unflatten(2, _grid(latents, encoder[-1].depth))
        check_finite(features, self.version)
        return features


def load_diffusion(
    name: str,
    *,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    weights: Path | None = None,
    random_weights: bool = False,
) -> DiffusionExtractor:
    """The extractor on a model: sd14, sd15, sd21, ssd1b, sdxl, a diffusers folder, or an id in the hub's cache.

    Families are looked for in the folder `weights` first. Raises `SettingsError`.
    """
    if random_weights:
        return DiffusionExtractor(random_model(name, find_architecture(name), dtype=dtype, device=device))
    return DiffusionExtractor(load_model(name, weights=weights, dtype=dtype, device=device))


def attention_layers(model: DiffusionModel, settings: AttentionPass) -> dict[int, list[Projections]]:
    """The layers to be read, by how often the latent's sides are halved. Raises `SettingsError` if there are none."""
    found: dict[int, list[Projections]] = {}
    for layer in self_attention_layers(model.unet):
        level = 512 // (model.patch * 2**layer.depth)
        if level in settings.levels and (settings.layers == "all" or layer.place != "encoder"):
            found.setdefault(layer.depth, []).append(layer.projections)
    if not found:
        levels = ", ".join(map(str, settings.levels))
        raise SettingsError(f"{model.version} has no self-attention at the levels {levels}: choose others")
    return found


def _grid(latents: Float[Tensor, "b 4 h w"], depth: int) -> tuple[int, int]:
    return latents.shape[2] >> depth, latents.shape[3] >> depth
