"""Features of DINO, a vision transformer trained by self-distillation (Caron et al. 2021; DinoSeg in DiffSeg)."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from transformers import ViTConfig, ViTModel

from walkcut.backbones import AttentionMap, FeatureKind, ImageFeatures, Weights
from walkcut.backbones.attention_hooks import Projections, capture_attention, capture_output, check_finite
from walkcut.backbones.resize import resize
from walkcut.backbones.weights import check_dtype, find_folder, how_to_fetch, load_network, weights_digest, working_size
from walkcut.errors import SettingsError
from walkcut.telemetry.spans import span

_REVISION = 1  # raise it when the same settings give other features
_SEED = 0  # of random weights
_REPOSITORY, _FILES = "facebook/dino-vits8", ("config.json", "model.safetensors")
_VITS8: Mapping[str, Any] = {"hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536, "patch_size": 8}

# Mean and standard deviation of ImageNet's colours, in [0, 1].
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class DinoBackbone:
    """Self-attention between patches, averaged over heads and the last `layers`, and the keys of the last layer.

    The keys are the feature map, as in TokenCut and MaskCut. Images are resized to about `side`² pixels. There is no
    contour.
    """

    provides: ClassVar[frozenset[FeatureKind]] = frozenset({"attention_maps", "feature_map"})

    network: ViTModel
    weights: str
    side: int = 224
    layers: int = 1

    @property
    def version(self) -> str:
        """Revision, weights, precision and settings."""
        return f"dino-{_REVISION} {self.weights} {self.network.dtype} side={self.side} layers={self.layers}"

    @torch.no_grad()
    def extract(self, image: UInt8[Tensor, "y x 3"], kinds: frozenset[FeatureKind]) -> ImageFeatures:
        """Return one attention map, and a feature map on the same grid."""
        pixels, patch = self._preprocess(image), self.network.config.patch_size
        grid = pixels.shape[2] // patch, pixels.shape[3] // patch
        maps: tuple[AttentionMap, ...] = ()
        feature_map = None
        if "attention_maps" in kinds:
            with span("model"), capture_attention({0: self._projections()[-self.layers :]}) as averages:
                self.network(pixels, interpolate_pos_encoding=True)
            check_finite(averages[0], self.version)
            maps = (AttentionMap(grid, between_patches(averages[0][0])),)
        if "feature_map" in kinds:
            with span("model"), capture_output(self._projections()[-1].to_k) as keys:
                self.network(pixels, interpolate_pos_encoding=True)
            feature_map = keys[0][0, 1:].float().mT.unflatten(1, grid)
            check_finite(feature_map, self.version)
        return ImageFeatures(attention_maps=maps, feature_map=feature_map)

    def _preprocess(self, image: UInt8[Tensor, "y x 3"]) -> Float[Tensor, "1 3 h w"]:
        """Return the image resized and normalised as in training."""
        size = working_size((image.shape[0], image.shape[1]), self.side, self.network.config.patch_size)
        pixels = resize(image.to(self.network.device), size)
        mean, deviation = (pixels.new_tensor(values)[:, None, None] for values in (_MEAN, _DEVIATION))
        return ((pixels - mean) / deviation).to(self.network.dtype)

    def _projections(self) -> list[Projections]:
        """Return the projections of all layers in order, by the names of any release of transformers."""
        named = [(name.rsplit(".", 1)[-1], module) for name, module in self.network.named_modules()]
        queries = [module for name, module in named if name in {"query", "q_proj"}]
        keys = [module for name, module in named if name in {"key", "k_proj"}]
        heads = self.network.config.num_attention_heads
        return [Projections(heads, *pair) for pair in zip(queries, keys, strict=True)]


def between_patches(attention: Float[Tensor, "m m"]) -> Float[Tensor, "n n"]:
    """Return the attention between patches, without the first token; rows with no attention to patches are uniform."""
    weights = attention[1:, 1:].clamp_min(torch.finfo(attention.dtype).tiny)
    return weights / weights.sum(1, keepdim=True)


def load_dino(weights: Weights, device: torch.device, architecture: Mapping[str, Any] = _VITS8) -> DinoBackbone:
    """Load DINO's ViT-S/8 from the folder `dino` of the weights or the hub's cache, or make one with random weights.

    Random weights are always the same; only they may be of another `architecture`. Raises `SettingsError`.
    """
    check_dtype(weights.dtype, device)
    if weights.random:
        version = "random"
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_SEED)
            network = ViTModel(ViTConfig(**architecture), add_pooling_layer=False)
    else:
        folder = find_folder("dino", _REPOSITORY, _FILES, weights.folder)
        missing = [file for file in _FILES if not (folder / file).is_file()]
        if missing:
            raise SettingsError(f"{folder} lacks {', '.join(missing)}: {how_to_fetch(_REPOSITORY, missing, folder)}")
        version = f"vits8-{weights_digest(folder, ('',))}"
        network = load_network(partial(ViTModel.from_pretrained, add_pooling_layer=False), folder, "", "model")
    return DinoBackbone(network.to(device, weights.dtype).eval().requires_grad_(requires_grad=False), version)
