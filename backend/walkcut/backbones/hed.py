"""Holistically-nested edge detection: a learned contour (Xie & Tu, ICCV 2015)."""

import hashlib
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn.functional import interpolate, max_pool2d

from walkcut.backbones import FeatureKind, ImageFeatures, Weights
from walkcut.backbones.attention_hooks import check_finite
from walkcut.backbones.classical import ClassicalBackbone
from walkcut.backbones.hed_weights import DEPTHS, load_weights
from walkcut.backbones.resize import resample, resize
from walkcut.backbones.weights import check_dtype
from walkcut.errors import SettingsError
from walkcut.hierarchy.merge_rule import MergeRule
from walkcut.models import hed_file
from walkcut.telemetry.spans import span

_REVISION = 1  # raise it when the same settings give other features
_CHANNELS = (64, 128, 256, 512, 512)  # of VGG-16's stages
_MEAN = (122.67892, 116.66877, 104.00699)  # of red, green and blue in ImageNet, subtracted as in training
_MIN_SIDE = 16  # pixels
_SEED = 0  # of random weights
# Found on images that the network was trained on, so not tuned further there.
RULE = MergeRule(histogram=0.6, smallest=0.001, scale=0.615, auto=0.43)


class HedNetwork(nn.Module):
    """VGG-16 up to its last convolution, with a side output of each of the five stages, and all five fused (3.1)."""

    def __init__(self) -> None:
        super().__init__()
        inputs = (3, *_CHANNELS)
        self.stages = nn.ModuleList(_stage(*sizes) for sizes in zip(inputs, _CHANNELS, DEPTHS, strict=False))
        self.sides = nn.ModuleList(nn.Conv2d(channels, 1, 1) for channels in _CHANNELS)
        self.fuse = nn.Conv2d(len(_CHANNELS), 1, 1)

    def forward(self, image: Float[Tensor, "b 3 y x"]) -> Float[Tensor, "b 6 y x"]:
        """Return the probability of a contour at each pixel, by the five side outputs and the fused one.

        The image is in RGB, from 0 to 255, less the mean.
        """
        maps, outputs = image, []
        for index, (stage, side) in enumerate(zip(self.stages, self.sides, strict=True)):
            maps = stage(max_pool2d(maps, 2, ceil_mode=True) if index else maps)
            outputs.append(interpolate(side(maps), image.shape[2:], mode="bilinear"))
        sides = torch.cat(outputs, 1)
        return torch.cat([sides, self.fuse(sides)], 1).sigmoid()


def _stage(inputs: int, channels: int, depth: int) -> nn.Sequential:
    """Return convolutions of 3×3 pixels, each with a rectifier."""
    convolutions = [nn.Conv2d(inputs if not index else channels, channels, 3, padding=1) for index in range(depth)]
    return nn.Sequential(*(layer for convolution in convolutions for layer in (convolution, nn.ReLU(inplace=True))))


@dataclass(frozen=True)
class HedBackbone:
    """The contour of a network, and the histograms and the random walk of the classical model.

    The network sees the image at most `max_side` pixels long. Its contour is half the fused map and half the mean of
    all six, shrunk to the working size of `classical`.
    """

    provides: ClassVar[frozenset[FeatureKind]] = ClassicalBackbone.provides

    network: HedNetwork
    weights: str
    max_side: int = 512
    classical: ClassicalBackbone = field(default_factory=ClassicalBackbone)

    @property
    def version(self) -> str:
        """Revision, weights, precision and settings."""
        dtype = next(self.network.parameters()).dtype
        return f"hed-{_REVISION} {self.weights} {dtype} max_side={self.max_side} {self.classical.version}"

    def extract(self, image: UInt8[Tensor, "y x 3"], kinds: frozenset[FeatureKind]) -> ImageFeatures:
        """Return contour and feature map at the working resolution, and one attention map."""
        with span("features"):
            histograms = self.classical.histograms(image)
            contour = self._shrunk(image, histograms.shape[1:]) if kinds & {"contour", "attention_maps"} else None
            return replace(self.classical.features(histograms, contour, kinds), merge_rule=RULE)

    def _shrunk(self, image: UInt8[Tensor, "y x 3"], size: torch.Size) -> Float[Tensor, "h w"]:
        return resample(self.contour(image)[None], (size[0], size[1]))[0].clamp(0, 1)

    @torch.no_grad()
    def contour(self, image: UInt8[Tensor, "y x 3"]) -> Float[Tensor, "h w"]:
        """Return the strength of contours, in [0, 1], at the size that the network sees."""
        height, width, _ = image.shape
        scale = min(1.0, self.max_side / max(height, width))
        size = [min(side, max(_MIN_SIDE, round(side * scale))) for side in (height, width)]
        first = next(self.network.parameters())
        pixels = resize(image.to(first.device), (size[0], size[1]), white=255)
        inputs = (pixels - pixels.new_tensor(_MEAN)[:, None, None]).to(first.dtype)
        with span("model"):  # CPUs are faster in this order of channels
            outputs = self.network(inputs.contiguous(memory_format=torch.channels_last))[0].float()
        check_finite(outputs, self.version)
        return (outputs[-1] + outputs.mean(0)) / 2


def load_hed(weights: Weights, device: torch.device) -> HedBackbone:
    """Load the network from `hed.safetensors` in the folder of weights, or make one with random weights.

    Random weights are always the same. Raises `SettingsError`.
    """
    check_dtype(weights.dtype, device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        network = HedNetwork()
    version = "random"
    if not weights.random:
        tensors = load_weights(weights.folder)
        try:
            network.load_state_dict(tensors)
        except RuntimeError as error:
            path = hed_file(weights.folder)
            raise SettingsError(f"{path} is not of this network: run `walkcut models fetch hed` again") from error
        version = hashlib.sha256(hed_file(weights.folder).read_bytes()).hexdigest()[:8]
    return HedBackbone(network.to(device, weights.dtype).eval().requires_grad_(requires_grad=False), version)
