"""Evidence from text-to-image diffusion models: Stable Diffusion 1.x and 2.x, SSD-1B, SDXL."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from walkcut.backbones import AttentionMap, FeatureKind, ImageFeatures
from walkcut.backbones.attention_hooks import (
    Projections,
    SelfAttention,
    capture_attention,
    capture_output,
    check_finite,
    self_attention_layers,
)
from walkcut.backbones.diffusion_model import DiffusionModel, load_model, random_model
from walkcut.backbones.oom_fallback import ExecutionPlan, fallback_plans, run_with_oom_fallback, sliced_attention
from walkcut.backbones.presets import DIFFCUT, DWC, AttentionConfig, FeatureConfig
from walkcut.backbones.weights import find_architecture, working_size
from walkcut.errors import SettingsError
from walkcut.telemetry.spans import span

_REVISION = 1  # raise it when the same settings give other evidence


@dataclass(frozen=True)
class DiffusionBackbone:
    """Self-attention and features of a diffusion model that is shown the image with the empty prompt.

    Features are the output of the encoder's last self-attention layer (DiffCut 3.1). There is no contour.
    """

    model: DiffusionModel
    attention: AttentionConfig = DWC
    features: FeatureConfig = DIFFCUT

    @property
    def provides(self) -> frozenset[FeatureKind]:
        """Maps and features."""
        return frozenset({"maps", "features"})

    @property
    def version(self) -> str:
        """Revision, model, precision and settings."""
        return f"diffusion-{_REVISION} {self.model.version} {self.model.dtype} {self.attention} {self.features}"

    def extract(self, image: UInt8[Tensor, "y x 3"], parts: frozenset[FeatureKind]) -> ImageFeatures:
        """One map for each level of `attention`, and features, each from a pass of its own."""
        return self.extract_batch([image], parts)[0]

    def extract_batch(
        self, images: Sequence[UInt8[Tensor, "_ _ 3"]], parts: frozenset[FeatureKind]
    ) -> tuple[ImageFeatures, ...]:
        """The evidence of images of any sizes, in their order; those that are seen at one size share passes.

        Where memory runs out it is tried with less, as `fallback_plans` says and `ImageFeatures.degradations` tell.
        """
        found = [ImageFeatures()] * len(images)
        for part in sorted(parts & self.provides):
            sizes = [self._working_size(image, part) for image in images]
            for size in dict.fromkeys(sizes):
                alike = [place for place, own in enumerate(sizes) if own == size]
                efforts = fallback_plans(size, self.model.multiple, self.model.device)
                look = partial(self._run, part)
                image_features = run_with_oom_fallback(
                    look, [images[place] for place in alike], efforts, self.model.device
                )
                for place, seen in zip(alike, image_features, strict=True):
                    found[place] = found[place].merged_with(seen)
        return tuple(found)

    def _working_size(self, image: UInt8[Tensor, "y x 3"], part: FeatureKind) -> tuple[int, int]:
        if part == "maps":
            side = self.attention.side or self.model.native_side
        else:
            side = self.features.patches * self.model.patch * 2 ** self._feature_layer().depth
        return working_size((image.shape[0], image.shape[1]), side, self.model.multiple)

    def _feature_layer(self) -> SelfAttention:
        """The encoder's last self-attention layer."""
        encoder = [layer for layer in self_attention_layers(self.model.unet) if layer.place == "encoder"]
        if not encoder:
            raise SettingsError(f"the encoder of {self.model.version} has no self-attention: choose another model")
        return encoder[-1]

    @torch.no_grad()
    def _run(
        self, part: FeatureKind, images: Sequence[UInt8[Tensor, "_ _ 3"]], effort: ExecutionPlan
    ) -> tuple[ImageFeatures, ...]:
        """The evidence of images from passes that they share, with this effort."""
        with ExitStack() as stack:
            if effort.offload_to_cpu:
                stack.enter_context(self.model.offload_to_cpu())
            else:
                self.model.restore_device()
            if effort.sliced:
                stack.enter_context(sliced_attention(self.model.unet))
            with span("VAE"):
                latents = self.model.encode(images, effort.size)
            if part == "maps":
                return tuple(ImageFeatures(maps=maps) for maps in self._maps(latents))
            return tuple(ImageFeatures(features=features) for features in self._features(latents))

    def _maps(self, latents: Float[Tensor, "b 4 h w"]) -> tuple[tuple[AttentionMap, ...], ...]:
        depths = attention_layers(self.model, self.attention)
        with span("U-Net"):
            if self.attention.ddim_inversion:
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
        layer = self._feature_layer()
        noisy = self.model.add_noise(latents, self.features.timestep, self.features.seed)
        with span("U-Net"), capture_output(layer.module) as outputs:
            self.model.predict(noisy, self.features.timestep)
        features = outputs[0].float().mT.unflatten(2, _grid(latents, layer.depth))
        check_finite(features, self.version)
        return features


def load_diffusion(
    name: str,
    *,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    weights: Path | None = None,
    random_weights: bool = False,
    attention: AttentionConfig = DWC,
) -> DiffusionBackbone:
    """The backbone on a model: sd14, sd15, sd21, ssd1b, sdxl, a diffusers folder, or an id in the hub's cache.

    Families are looked for in the folder `weights` first. Raises `SettingsError`.
    """
    if random_weights:
        model = random_model(name, find_architecture(name), dtype=dtype, device=device)
    else:
        model = load_model(name, weights=weights, dtype=dtype, device=device)
    return DiffusionBackbone(model, attention)


def attention_layers(model: DiffusionModel, settings: AttentionConfig) -> dict[int, list[Projections]]:
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
