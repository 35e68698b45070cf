"""Features of text-to-image diffusion models: Stable Diffusion 1.x and 2.x, SSD-1B, SDXL."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from walkcut.backbones import AttentionMap, FeatureKind, ImageFeatures, Weights
from walkcut.backbones.attention_hooks import (
    Projections,
    SelfAttention,
    capture_attention,
    capture_output,
    check_finite,
    self_attention_layers,
)
from walkcut.backbones.configs import DIFFCUT, DWC, AttentionConfig, FeatureConfig
from walkcut.backbones.diffusion_model import DiffusionModel, load_model, random_model
from walkcut.backbones.oom_fallback import ExecutionPlan, fallback_plans, run_with_oom_fallback, sliced_attention
from walkcut.backbones.weights import ARCHITECTURES, check_dtype, working_size
from walkcut.errors import SettingsError
from walkcut.models import DINO
from walkcut.telemetry.spans import span

_REVISION = 1  # raise it when the same settings give other features


@dataclass(frozen=True)
class DiffusionBackbone:
    """Self-attention and features of a diffusion model, given the image and the empty prompt.

    The feature map is the output of the encoder's last self-attention layer (DiffCut 3.1). There is no contour.
    """

    provides: ClassVar[frozenset[FeatureKind]] = frozenset({"attention_maps", "feature_map"})

    model: DiffusionModel
    attention: AttentionConfig = DWC
    features: FeatureConfig = DIFFCUT

    @property
    def version(self) -> str:
        """Revision, model, precision and settings."""
        heads = "" if self.attention.heads == "equal" else f" heads={self.attention.heads}"
        return f"diffusion-{_REVISION} {self.model.version} {self.model.dtype} {self.attention} {self.features}{heads}"

    def extract(self, image: UInt8[Tensor, "y x 3"], kinds: frozenset[FeatureKind]) -> ImageFeatures:
        """Return an attention map for each level of `attention`, and the feature map, each kind from its own pass."""
        return self.extract_batch([image], kinds)[0]

    def extract_batch(
        self, images: Sequence[UInt8[Tensor, "_ _ 3"]], kinds: frozenset[FeatureKind]
    ) -> tuple[ImageFeatures, ...]:
        """Return the features of images of any sizes, in order; those of one working size share passes.

        Where memory runs out, `fallback_plans` are tried in turn, and noted in `ImageFeatures.degradations`.
        """
        features = [ImageFeatures()] * len(images)
        for kind in sorted(kinds & self.provides):
            sizes = [self._working_size(image, kind) for image in images]
            for size in dict.fromkeys(sizes):
                indices = [index for index, image_size in enumerate(sizes) if image_size == size]
                plans = fallback_plans(size, self.model.multiple, self.model.device)
                batch = [images[index] for index in indices]
                extracted = run_with_oom_fallback(partial(self._run, kind), batch, plans, self.model.device)
                for index, addition in zip(indices, extracted, strict=True):
                    features[index] = features[index].merged_with(addition)
        return tuple(features)

    def _working_size(self, image: UInt8[Tensor, "y x 3"], kind: FeatureKind) -> tuple[int, int]:
        if kind == "attention_maps":
            side = self.attention.side or self.model.native_side
        else:
            side = self.features.patches * self.model.patch * 2 ** self._feature_layer().depth
        return working_size((image.shape[0], image.shape[1]), side, self.model.multiple)

    def _feature_layer(self) -> SelfAttention:
        """Return the encoder's last self-attention layer. Raises `SettingsError` if there is none."""
        encoder = [layer for layer in self_attention_layers(self.model.unet) if layer.position == "encoder"]
        if not encoder:
            raise SettingsError(f"the encoder of {self.model.version} has no self-attention: choose another model")
        return encoder[-1]

    @torch.no_grad()
    def _run(
        self, kind: FeatureKind, images: Sequence[UInt8[Tensor, "_ _ 3"]], plan: ExecutionPlan
    ) -> tuple[ImageFeatures, ...]:
        """Return one kind of features of images that share passes, computed as planned."""
        with ExitStack() as stack:
            if plan.offload_to_cpu:
                stack.enter_context(self.model.offload_to_cpu())
            else:
                self.model.restore_device()
            if plan.sliced:
                stack.enter_context(sliced_attention(self.model.unet))
            with span("VAE"):
                latents = self.model.encode(images, plan.size)
            if kind == "attention_maps":
                return tuple(ImageFeatures(attention_maps=maps) for maps in self._attention_maps(latents))
            return tuple(ImageFeatures(feature_map=feature_map) for feature_map in self._feature_maps(latents))

    def _attention_maps(self, latents: Float[Tensor, "b 4 h w"]) -> tuple[tuple[AttentionMap, ...], ...]:
        depths = attention_layers(self.model, self.attention)
        with span("U-Net"):
            if self.attention.ddim_inversion:
                latents = self.model.invert(latents, self.attention.timestep)
            with capture_attention(depths, by_entropy=self.attention.heads == "entropy") as averages:
                self.model.predict(latents, self.attention.timestep)
        for average in averages.values():
            check_finite(average, self.version)
        coarse_to_fine = [(_grid(latents, depth), averages[depth]) for depth in sorted(averages, reverse=True)]
        return tuple(
            tuple(AttentionMap(grid, average[index]) for grid, average in coarse_to_fine)
            for index in range(len(latents))
        )

    def _feature_maps(self, latents: Float[Tensor, "b 4 h w"]) -> Float[Tensor, "b c y x"]:
        layer = self._feature_layer()
        noisy = self.model.add_noise(latents, self.features.timestep, self.features.seed)
        with span("U-Net"), capture_output(layer.module) as outputs:
            self.model.predict(noisy, self.features.timestep)
        feature_maps = outputs[0].float().mT.unflatten(2, _grid(latents, layer.depth))
        check_finite(feature_maps, self.version)
        return feature_maps


def load_diffusion(
    name: str, weights: Weights, device: torch.device, attention: AttentionConfig = DWC
) -> DiffusionBackbone:
    """Return the backbone on a diffusion model; see `find_weights`. Raises `SettingsError`."""
    check_dtype(weights.dtype, device)
    if not weights.random:
        model = load_model(name, weights=weights.folder, dtype=weights.dtype, device=device)
    elif name in ARCHITECTURES:
        model = random_model(name, ARCHITECTURES[name], dtype=weights.dtype, device=device)
    else:
        known = ", ".join([*ARCHITECTURES, DINO])
        raise SettingsError(f"unknown architecture {name!r} for random weights: choose one of {known}")
    return DiffusionBackbone(model, attention)


def attention_layers(model: DiffusionModel, settings: AttentionConfig) -> dict[int, list[Projections]]:
    """Return the layers to read, by depth. Raises `SettingsError` if the model has none at these levels."""
    layers: dict[int, list[Projections]] = {}
    for layer in self_attention_layers(model.unet):
        level = 512 // (model.patch * 2**layer.depth)
        if level in settings.levels and (settings.layers == "all" or layer.position != "encoder"):
            layers.setdefault(layer.depth, []).append(layer.projections)
    if not layers:
        levels = ", ".join(map(str, settings.levels))
        raise SettingsError(f"{model.version} has no self-attention at the levels {levels}: choose others")
    return layers


def _grid(latents: Float[Tensor, "b 4 h w"], depth: int) -> tuple[int, int]:
    return latents.shape[2] >> depth, latents.shape[3] >> depth
