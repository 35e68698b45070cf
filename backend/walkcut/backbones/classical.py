"""Evidence without learned weights: colour, texture and contours of the image itself."""

import math
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from skimage.color import rgb2lab
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, adaptive_max_pool2d, interpolate

from walkcut.backbones import AttentionMap, FeatureKind, ImageFeatures
from walkcut.telemetry.spans import span

_REVISION = 1  # raise it when the same settings give other evidence
_LEAST_SIDE = 16

# Colour codewords: a lattice of this spacing in CIELAB, with lightness shrunk and chroma compressed, since images
# are mostly greyish. K-means codebooks, of all images or of each, change the covering on BSDS500 by less than 0.01.
_COLOUR_STEP, _LIGHTNESS, _CHROMA = 18.0, 0.6, 20.0
_COLOUR_SOFTNESS = 0.3  # of the spacing

_FLOOR = 1e-4  # added to each codeword's share, so that χ² never divides by nothing

_CUES = 2  # colour and texture

_TEXTURE_SIGMAS = (1.0, 2.0)  # pixels
_TEXTURE_ORDERS = ((0, 1), (1, 0), (0, 2), (1, 1), (2, 0))  # derivatives along y and x
_TEXTURE_FLAT = 0.05  # the response that counts as much as no texture at all

_CONTOUR_SIGMAS = (1.5, 3.0, 6.0)  # of 256 pixels on the longest side


@dataclass(frozen=True)
class ClassicalBackbone:
    """The backbone that needs no model.

    Images are shrunk to `working_side` pixels on the longest side. The walk steps between patches, `patches` on the
    longest side, at most `reach` patches away, `e` times more rarely for every `contour_scale` by which a contour
    between them rises above both ends, and for every `histogram_scale` of χ² distance. The map holds `steps` steps,
    since one step sees no further than its reach, and self-attention sees the whole image.

    Tried on BSDS500 val and left out, since none raised `merge`'s covering ODS by 0.004 on both the even and the odd
    images (change on either): contours of 1 (-0.018, -0.005) and of 12 pixels (-0.010, -0.006) besides, strength
    across each border's own direction (-0.011, -0.001), strength smoothed along contours (-0.002, -0.001), contours of
    the walk's eigenvectors (-0.001, -0.005) and their distance between regions (-0.010, -0.002), textures of 4 and 8
    pixels (-0.009, 0.000), and distances of mean colours (-0.006, -0.008).
    """

    working_side: int = 256
    patches: int = 48
    reach: int = 6
    steps: int = 16
    contour_scale: float = 0.1
    histogram_scale: float = 0.15

    @property
    def provides(self) -> frozenset[FeatureKind]:
        """All parts."""
        return frozenset({"maps", "features", "contour"})

    @property
    def version(self) -> str:
        """Revision and settings."""
        return f"classical-{_REVISION} {self}"

    def extract(self, image: UInt8[Tensor, "y x 3"], parts: frozenset[FeatureKind]) -> ImageFeatures:
        """Contour and features at the working resolution, and one map of a walk.

        The features are soft histograms of colour and of texture; the channels of either sum to one.
        """
        with span("evidence"):
            lab = to_lab(_shrunk(image, self.working_side))
            features = torch.cat([colour_histogram(lab), texture_histogram(lab[0])])
            if not parts & {"contour", "maps"}:
                return ImageFeatures(features=features)
            contour = contour_strength(features)
            return ImageFeatures(
                maps=(self._walk(features, contour),) if "maps" in parts else (),
                features=features if "features" in parts else None,
                contour=contour if "contour" in parts else None,
            )

    def _walk(self, features: Float[Tensor, "c h w"], contour: Float[Tensor, "h w"]) -> AttentionMap:
        """The walk from patch to patch.

        A contour counts by how far it rises above its two ends, so that texture does not stop the walk.
        """
        scale = min(1.0, self.patches / max(contour.shape))
        height, width = (max(1, round(side * scale)) for side in contour.shape)
        rows, columns = torch.arange(height)[:, None], torch.arange(width)
        down, right = offsets(self.reach).T[..., None, None]
        inside = (rows + down < height) & (columns + right >= 0) & (columns + right < width)
        patch = (rows * width + columns).expand_as(inside)[inside]
        other = patch + (down * width + right).expand_as(inside)[inside]
        ends = adaptive_avg_pool2d(contour[None], (height, width)).flatten()
        barrier = intervening_contour(contour, (height, width), self.reach)[inside] - (ends[patch] + ends[other]) / 2
        histograms = adaptive_avg_pool2d(features, (height, width)).flatten(1)
        distance = chi_square(histograms[:, patch], histograms[:, other])
        weights = torch.eye(height * width, device=contour.device)
        weights[patch, other] = weights[other, patch] = torch.exp(
            -barrier.clamp_min(0) / self.contour_scale - distance / self.histogram_scale
        )
        one_step = weights / weights.sum(1, keepdim=True)
        return AttentionMap((height, width), torch.linalg.matrix_power(one_step, self.steps))


def to_lab(rgb: Float[Tensor, "3 h w"]) -> Float[Tensor, "3 h w"]:
    """CIELAB (D65; L from 0 to 100) of sRGB in [0, 1]."""
    lab = rgb2lab(rgb.numpy(force=True), channel_axis=0)
    return torch.from_numpy(np.ascontiguousarray(lab, np.float32)).to(rgb.device)


def colour_histogram(lab: Float[Tensor, "3 h w"]) -> Float[Tensor, "k h w"]:
    """Soft assignment of each pixel to the fixed colour codewords."""
    points, codewords = _compressed(lab).flatten(1).T, _colour_codewords().to(lab.device)
    nearness = -torch.cdist(points, codewords).square() / (2 * (_COLOUR_SOFTNESS * _COLOUR_STEP) ** 2)
    return _with_floor(nearness.softmax(1).T.unflatten(1, lab.shape[1:]).contiguous())


def texture_histogram(lightness: Float[Tensor, "h w"]) -> Float[Tensor, "k h w"]:
    """Shares of filters in the local contrast energy of the lightness (0 to 100), and of flatness.

    The filters are derivatives of Gaussians of first and second order; bright and dark phases count apart.
    """
    responses = torch.stack(
        [filtered(lightness / 100, sigma, orders) for sigma in _TEXTURE_SIGMAS for orders in _TEXTURE_ORDERS]
    )
    flat = torch.full_like(responses[:1], _TEXTURE_FLAT)
    energy = torch.cat([responses.relu(), (-responses).relu(), flat]).square()
    return _with_floor(energy / energy.sum(0))


def _with_floor(histogram: Float[Tensor, "k h w"]) -> Float[Tensor, "k h w"]:
    return (histogram + _FLOOR) / (1 + len(histogram) * _FLOOR)


def contour_strength(features: Float[Tensor, "c h w"]) -> Float[Tensor, "h w"]:
    """How much the cues' histograms on two sides of a pixel differ, in [0, 1], in the direction where they do most.

    Scales are added as tensors; the strength is the root of the largest eigenvalue.
    """
    unit = max(features.shape[1:]) / 256
    tensors = [fisher_tensor(features, max(1.0, sigma * unit)) for sigma in _CONTOUR_SIGMAS]
    xx, xy, yy = torch.stack(tensors).mean(0) / _CUES
    largest = (xx + yy) / 2 + torch.hypot((xx - yy) / 2, xy)
    return largest.clamp(0, 1).sqrt()


def fisher_tensor(histogram: Float[Tensor, "k h w"], sigma: float) -> Float[Tensor, "3 h w"]:
    """The χ² distances of the two halves of a Gaussian window, for all orientations at once.

    With the window's mean `S` and the difference `D(θ) = X cos θ + Y sin θ` of its halves, which a Gaussian derivative
    steers (Freeman & Adelson 1991), the distance `½ Σ D² / 2S` is a quadratic form in `(cos θ, sin θ)`: the structure
    tensor of the histogram in the Fisher information metric. Returns its entries xx, xy and yy.
    """
    mean, x, y = (filtered(histogram, sigma, orders) for orders in ((0, 0), (0, 1), (1, 0)))
    weight = 1 / (4 * mean)
    return torch.stack([(x * x * weight).sum(0), (x * y * weight).sum(0), (y * y * weight).sum(0)])


def intervening_contour(contour: Float[Tensor, "y x"], grid: tuple[int, int], reach: int) -> Float[Tensor, "o h w"]:
    """The strongest contour on the straight line from each patch to the one at each of `offsets(reach)`.

    Leung & Malik 1998. Lines are sampled at half a patch; beyond the border they see the nearest patch.
    """
    halves = adaptive_max_pool2d(contour[None], (2 * grid[0], 2 * grid[1]))[0]
    along = torch.linspace(0, 2, 2 * reach + 1)[:, None, None]
    down, right = offsets(reach).T[..., None, None, None]
    rows = (2 * torch.arange(grid[0])[:, None] + along * down).round().long().clamp(0, 2 * grid[0] - 1)
    columns = (2 * torch.arange(grid[1]) + along * right).round().long().clamp(0, 2 * grid[1] - 1)
    return halves[rows, columns].amax(1)


def offsets(reach: int) -> Int64[Tensor, "o 2"]:
    """Steps down and right within `reach`, each pair of opposite ones once."""
    steps = torch.arange(-reach, reach + 1)
    grid = torch.cartesian_prod(steps, steps)
    later = (grid[:, 0] > 0) | ((grid[:, 0] == 0) & (grid[:, 1] > 0))
    return grid[later & (grid.square().sum(1) <= reach**2)]


def chi_square(p: Float[Tensor, "c e"], q: Float[Tensor, "c e"]) -> Float[Tensor, " e"]:
    """The χ² distance `½ Σ (p - q)² / (p + q)` of histograms, from 0 to 1 for each cue that sums to one."""
    return ((p - q).square() / (p + q).clamp_min(1e-12)).sum(0) / 2


def filtered(maps: Float[Tensor, "*c h w"], sigma: float, orders: tuple[int, int]) -> Float[Tensor, "*c h w"]:
    """Maps under a separable Gaussian window of `sigma` pixels, derived `orders` times along y and x."""
    height, width = maps.shape[-2:]
    down, right = window(height, sigma, orders[0]), window(width, sigma, orders[1])
    return down.to(maps) @ maps @ right.to(maps).T


@lru_cache(maxsize=64)
def window(n: int, sigma: float, order: int) -> Float[Tensor, "n n"]:
    """The matrix that filters `n` values, mirrored at both ends, with a Gaussian or its first or second derivative.

    A step of height one gives one at most under the first derivative; the second has an absolute sum of one.
    """
    reach = math.ceil(3 * sigma)
    x = torch.arange(-reach, reach + 1, dtype=torch.float64)
    kernel = torch.exp(-x.square() / (2 * sigma**2)) * (torch.ones_like(x), x, x.square() / sigma**2 - 1)[order]
    if order == 2:
        kernel -= kernel.mean()
    kernel *= (1, 2, 1)[order] / kernel.abs().sum()
    place = (torch.arange(n)[:, None] + x.long()) % (2 * n)
    mirrored = torch.minimum(place, 2 * n - 1 - place)
    return torch.zeros(n, n, dtype=torch.float64).scatter_add_(1, mirrored, kernel.expand(n, -1)).float()


def _shrunk(image: UInt8[Tensor, "y x 3"], side: int) -> Float[Tensor, "3 h w"]:
    """The image in [0, 1] with at most `side` pixels on the longest side; the shorter keeps 16 of its own."""
    height, width, _ = image.shape
    scale = min(1.0, side / max(height, width))
    size = [min(length, max(_LEAST_SIDE, round(length * scale))) for length in (height, width)]
    scaled = image.permute(2, 0, 1)[None].float() / 255
    return interpolate(scaled, size, mode="bilinear", antialias=True)[0].clamp(0, 1)


def _compressed(lab: Float[Tensor, "3 *s"]) -> Float[Tensor, "3 *s"]:
    """CIELAB with lightness shrunk and chroma on a logarithmic scale."""
    chroma = lab[1:].norm(dim=0, keepdim=True).clamp_min(1e-6)
    return torch.cat([_LIGHTNESS * lab[:1], lab[1:] * torch.log1p(chroma / _CHROMA) * _CHROMA / chroma])


@cache
def _colour_codewords() -> Float[Tensor, "k 3"]:
    """The points of a face-centred cubic lattice that lie in or near the sRGB gamut."""
    steps = torch.arange(-8, 9)
    lattice = torch.cartesian_prod(steps, steps, steps)
    points = lattice[lattice.sum(1) % 2 == 0] * (_COLOUR_STEP / math.sqrt(2)) + torch.tensor([50 * _LIGHTNESS, 0, 0])
    levels = torch.linspace(0, 1, 17)
    gamut = _compressed(to_lab(torch.cartesian_prod(levels, levels, levels).T[:, None]))[:, 0].T
    distances = torch.cdist(points, gamut, compute_mode="donot_use_mm_for_euclid_dist")
    return points[distances.min(1).values < 0.45 * _COLOUR_STEP]
