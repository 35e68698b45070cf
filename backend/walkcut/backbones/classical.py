"""Image features without learned weights: colour, texture and contours."""

import math
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import ClassVar, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from skimage.color import rgb2lab
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, adaptive_max_pool2d

from walkcut.backbones import AttentionMap, FeatureKind, ImageFeatures
from walkcut.backbones.resize import resize
from walkcut.telemetry.spans import span

_Array = TypeVar("_Array", np.ndarray, Tensor)

_REVISION = 1  # raise it when the same settings give other features
_MIN_SIDE = 16  # pixels

# Colour codewords: a lattice of this spacing in CIELAB, with lightness scaled down and chroma compressed, since most
# colours in images are near grey. K-means codebooks, one for all images or one for each, change the covering on BSDS500
# by less than 0.01.
_COLOUR_STEP, _LIGHTNESS, _CHROMA = 18.0, 0.6, 20.0
_COLOUR_SOFTNESS = 0.3  # standard deviation of the soft assignment, times the spacing

_FLOOR = 1e-4  # added to each bin, so that χ² never divides by zero
_TINY = 1e-30  # for two empty bins; normal in single precision
_CUES = 2  # colour and texture

_TEXTURE_SIGMAS = (1.0, 2.0)  # pixels
_TEXTURE_ORDERS = ((0, 1), (1, 0), (0, 2), (1, 1), (2, 0))  # of the derivatives along y and x
_TEXTURE_FLAT = 0.05  # the constant response of the bin for flat areas
_CONTOUR_SIGMAS = (1.5, 3.0, 6.0)  # pixels of an image with 256 on the longest side
CONTOUR_ERROR = 5  # pixels of the contour map by which contours may lie beside the image's edges


@dataclass(frozen=True)
class ClassicalBackbone:
    """Backbone that needs no model.

    Images are shrunk to `working_side` pixels on the longest side. Its attention map is a random walk between patches,
    `patches` on the longest side and at most `reach` patches apart: a step is `e` times less likely for every
    `contour_scale` by which the contour between two patches exceeds that at its ends, and for every `histogram_scale`
    of χ² distance. The map is that of `steps` steps, to cover the whole image as self-attention does.

    Other features were tried on BSDS500 and rejected: see `benchmarks/RESULTS.md`.
    """

    provides: ClassVar[frozenset[FeatureKind]] = frozenset({"attention_maps", "feature_map", "contour"})

    working_side: int = 256
    patches: int = 48
    reach: int = 6
    steps: int = 16
    contour_scale: float = 0.1
    histogram_scale: float = 0.15

    @property
    def version(self) -> str:
        """Revision and settings."""
        return f"classical-{_REVISION} {self}"

    def extract(self, image: UInt8[Tensor, "y x 3"], kinds: frozenset[FeatureKind]) -> ImageFeatures:
        """Return contour and feature map at the working resolution, and one attention map; see `histograms`."""
        with span("features"):
            histograms = self.histograms(image)
            contour = contour_strength(histograms) if kinds & {"contour", "attention_maps"} else None
            return replace(self.features(histograms, contour, kinds), contour_error=CONTOUR_ERROR)

    def histograms(self, image: UInt8[Tensor, "y x 3"]) -> Float[Tensor, "c h w"]:
        """Return soft histograms of colour and of texture at the working resolution; the channels of each sum to 1."""
        lab = to_lab(_shrink(image, self.working_side))
        return torch.cat([colour_histogram(lab), texture_histogram(lab[0])])

    def features(
        self, histograms: Float[Tensor, "c h w"], contour: Float[Tensor, "h w"] | None, kinds: frozenset[FeatureKind]
    ) -> ImageFeatures:
        """Return features of these kinds, given the histograms and the contour, which may be that of another model."""
        return ImageFeatures(
            (self._walk(histograms, contour),) if contour is not None and "attention_maps" in kinds else (),
            histograms if "feature_map" in kinds else None,
            contour if "contour" in kinds else None,
        )

    def _walk(self, histograms: Float[Tensor, "c h w"], contour: Float[Tensor, "h w"]) -> AttentionMap:
        """Return the random walk between patches.

        A contour counts by how far it exceeds both ends of a step, so that texture does not stop the walk.
        """
        scale = min(1.0, self.patches / max(contour.shape))
        height, width = (max(1, round(side * scale)) for side in contour.shape)
        rows, columns = torch.arange(height)[:, None], torch.arange(width)
        down, right = offsets(self.reach).T[..., None, None]
        inside = (rows + down < height) & (columns + right >= 0) & (columns + right < width)
        patch = (rows * width + columns).expand_as(inside)[inside]
        target = patch + (down * width + right).expand_as(inside)[inside]
        ends = adaptive_avg_pool2d(contour[None], (height, width)).flatten()
        barrier = intervening_contour(contour, (height, width), self.reach)[inside] - (ends[patch] + ends[target]) / 2
        means = adaptive_avg_pool2d(histograms, (height, width)).flatten(1)
        distance = chi_square(means[:, patch].T, means[:, target].T)
        weights = torch.eye(height * width, device=contour.device)
        weights[patch, target] = weights[target, patch] = torch.exp(
            -barrier.clamp_min(0) / self.contour_scale - distance / self.histogram_scale
        )
        one_step = weights / weights.sum(1, keepdim=True)
        return AttentionMap((height, width), torch.linalg.matrix_power(one_step, self.steps))


def to_lab(rgb: Float[Tensor, "3 h w"]) -> Float[Tensor, "3 h w"]:
    """Convert sRGB in [0, 1] to CIELAB (D65; L from 0 to 100)."""
    lab = rgb2lab(rgb.numpy(force=True), channel_axis=0)
    return torch.from_numpy(np.ascontiguousarray(lab, np.float32)).to(rgb.device)


def colour_histogram(lab: Float[Tensor, "3 h w"]) -> Float[Tensor, "k h w"]:
    """Return the soft assignment of each pixel to the fixed colour codewords; channels sum to 1."""
    points, codewords = _compress(lab).flatten(1).T, _colour_codewords().to(lab.device)
    nearness = -torch.cdist(points, codewords).square() / (2 * (_COLOUR_SOFTNESS * _COLOUR_STEP) ** 2)
    return _with_floor(nearness.softmax(1).T.unflatten(1, lab.shape[1:]).contiguous())


def texture_histogram(lightness: Float[Tensor, "h w"]) -> Float[Tensor, "k h w"]:
    """Return the fraction of each filter in the local contrast energy of the lightness (0 to 100); channels sum to 1.

    The filters are first and second derivatives of Gaussians, bright and dark phases separately; the last channel is
    for flat areas.
    """
    responses = torch.stack(
        [gaussian_filter(lightness / 100, sigma, orders) for sigma in _TEXTURE_SIGMAS for orders in _TEXTURE_ORDERS]
    )
    flat = torch.full_like(responses[:1], _TEXTURE_FLAT)
    energy = torch.cat([responses.relu(), (-responses).relu(), flat]).square()
    return _with_floor(energy / energy.sum(0))


def _with_floor(histogram: Float[Tensor, "k h w"]) -> Float[Tensor, "k h w"]:
    return (histogram + _FLOOR) / (1 + len(histogram) * _FLOOR)


def contour_strength(features: Float[Tensor, "c h w"]) -> Float[Tensor, "h w"]:
    """Return how much the histograms on both sides of a pixel differ, in [0, 1], in the direction of most difference.

    The tensors of all scales are averaged; the strength is the root of the largest eigenvalue.
    """
    unit = max(features.shape[1:]) / 256
    tensors = [fisher_tensor(features, max(1.0, sigma * unit)) for sigma in _CONTOUR_SIGMAS]
    xx, xy, yy = torch.stack(tensors).mean(0) / _CUES
    largest = (xx + yy) / 2 + torch.hypot((xx - yy) / 2, xy)
    return largest.clamp(0, 1).sqrt()


def fisher_tensor(histogram: Float[Tensor, "k h w"], sigma: float) -> Float[Tensor, "3 h w"]:
    """Return the χ² distance between the halves of a Gaussian window, for all orientations at once, as a tensor.

    With the window's mean `S` and the difference `D(θ) = X cos θ + Y sin θ` of its halves (steerable derivatives,
    Freeman & Adelson 1991), the distance `½ Σ D² / 2S` is a quadratic form in `(cos θ, sin θ)`: the structure tensor of
    the histogram in the Fisher information metric. Its entries are given in the order xx, xy, yy.
    """
    mean, x, y = (gaussian_filter(histogram, sigma, orders) for orders in ((0, 0), (0, 1), (1, 0)))
    weight = 1 / (4 * mean)
    return torch.stack([(x * x * weight).sum(0), (x * y * weight).sum(0), (y * y * weight).sum(0)])


def intervening_contour(contour: Float[Tensor, "y x"], grid: tuple[int, int], reach: int) -> Float[Tensor, "o h w"]:
    """Return the strongest contour on the line from each patch to those at `offsets(reach)` (Leung & Malik 1998).

    Lines are sampled every half patch; beyond the image's border the nearest patch counts.
    """
    halves = adaptive_max_pool2d(contour[None], (2 * grid[0], 2 * grid[1]))[0]
    along = torch.linspace(0, 2, 2 * reach + 1)[:, None, None]
    down, right = offsets(reach).T[..., None, None, None]
    rows = (2 * torch.arange(grid[0])[:, None] + along * down).round().long().clamp(0, 2 * grid[0] - 1)
    columns = (2 * torch.arange(grid[1]) + along * right).round().long().clamp(0, 2 * grid[1] - 1)
    return halves[rows, columns].amax(1)


def offsets(reach: int) -> Int64[Tensor, "o 2"]:
    """Return the steps (down, right) within a distance of `reach`, one of each opposite pair."""
    steps = torch.arange(-reach, reach + 1)
    grid = torch.cartesian_prod(steps, steps)
    later = (grid[:, 0] > 0) | ((grid[:, 0] == 0) & (grid[:, 1] > 0))
    return grid[later & (grid.square().sum(1) <= reach**2)]


def chi_square(p: _Array, q: _Array) -> _Array:
    """Return the χ² distance `½ Σ (p - q)² / (p + q)` of histograms on the last axis, in [0, 1] if they sum to 1."""
    distance: _Array = ((p - q) ** 2 / (p + q + _TINY)).sum(-1) / 2
    return distance


def gaussian_filter(maps: Float[Tensor, "*c h w"], sigma: float, orders: tuple[int, int]) -> Float[Tensor, "*c h w"]:
    """Filter maps by a separable Gaussian of `sigma` pixels, or its derivatives of `orders` along y and x."""
    height, width = maps.shape[-2:]
    down, right = window(height, sigma, orders[0]), window(width, sigma, orders[1])
    return down.to(maps) @ maps @ right.to(maps).T


@lru_cache(maxsize=64)
def window(n: int, sigma: float, order: int) -> Float[Tensor, "n n"]:
    """Return the matrix that filters `n` values, mirrored at both ends, by a Gaussian derivative of `order` 0, 1 or 2.

    Kernels have an absolute sum of 1, or 2 for the first derivative: then a step of height 1 gives at most 1.
    """
    reach = math.ceil(3 * sigma)
    x = torch.arange(-reach, reach + 1, dtype=torch.float64)
    kernel = torch.exp(-x.square() / (2 * sigma**2)) * (torch.ones_like(x), x, x.square() / sigma**2 - 1)[order]
    if order == 2:
        kernel -= kernel.mean()
    kernel *= (1, 2, 1)[order] / kernel.abs().sum()
    index = (torch.arange(n)[:, None] + x.long()) % (2 * n)
    mirrored = torch.minimum(index, 2 * n - 1 - index)
    return torch.zeros(n, n, dtype=torch.float64).scatter_add_(1, mirrored, kernel.expand(n, -1)).float()


def _shrink(image: UInt8[Tensor, "y x 3"], side: int) -> Float[Tensor, "3 h w"]:
    """Return the image in [0, 1], at most `side` pixels long; a shorter side is not shrunk below 16 pixels."""
    height, width, _ = image.shape
    scale = min(1.0, side / max(height, width))
    size = [min(length, max(_MIN_SIDE, round(length * scale))) for length in (height, width)]
    return resize(image, (size[0], size[1]))[0].clamp(0, 1)


def _compress(lab: Float[Tensor, "3 *s"]) -> Float[Tensor, "3 *s"]:
    """Return CIELAB with lightness scaled down and chroma on a logarithmic scale."""
    chroma = lab[1:].norm(dim=0, keepdim=True).clamp_min(1e-6)
    return torch.cat([_LIGHTNESS * lab[:1], lab[1:] * torch.log1p(chroma / _CHROMA) * _CHROMA / chroma])


@cache
def _colour_codewords() -> Float[Tensor, "k 3"]:
    """Return the points of a face-centred cubic lattice in or near the sRGB gamut."""
    steps = torch.arange(-8, 9)
    lattice = torch.cartesian_prod(steps, steps, steps)
    points = lattice[lattice.sum(1) % 2 == 0] * (_COLOUR_STEP / math.sqrt(2)) + torch.tensor([50 * _LIGHTNESS, 0, 0])
    levels = torch.linspace(0, 1, 17)
    gamut = _compress(to_lab(torch.cartesian_prod(levels, levels, levels).T[:, None]))[:, 0].T
    distances = torch.cdist(points, gamut, compute_mode="donot_use_mm_for_euclid_dist")
    return points[distances.min(1).values < 0.45 * _COLOUR_STEP]
