"""Pixel-adaptive mask refinement (Araslanov & Roth 2020, Eq. 4-6), as DiffCut 3.3 applies it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import interpolate, pad

from walkcut.errors import SegmentationError
from walkcut.segmentation.algorithms.upsampling import argmax_of_chunks

_SHARPNESS = 0.1  # times the local standard deviation, as in the authors' program
_EPSILON = 1e-8
_MAX_VALUES = 1 << 25  # of the masks refined together
_DIRECTIONS = [direction for direction in product((-1, 0, 1), repeat=2) if direction != (0, 0)]


@dataclass(frozen=True)
class Pamr:
    """Settings of `pamr`."""

    iterations: int = 10
    dilations: tuple[int, ...] = (1, 2, 4, 8)


def pamr(
    image: Float[Tensor, "3 y x"],
    masks: Float[Tensor, "k h w"],
    *,
    iterations: int = 10,
    dilations: Sequence[int] = (1, 2, 4, 8),
) -> Float[Tensor, "k y x"]:
    """Replace each pixel's mask values by averages over neighbours of similar colour, `iterations` times.

    Image values are in [0, 1]; masks are resized to the image. Neighbours are the eight at each of the `dilations`,
    in pixels. Only one shifted copy of the masks is held at a time. Raises `SegmentationError` without an iteration or
    a dilation.

    >>> image = torch.tensor([0.0, 0, 0, 1, 1, 1]).expand(3, 2, 6)
    >>> masks = torch.tensor([1.0, 1, 0, 0, 0, 0]).expand(1, 2, 6)  # the border is one pixel off the image's edge
    >>> (pamr(image, masks, iterations=2, dilations=[1]) > 0.4).int().tolist()
    [[[1, 1, 1, 0, 0, 0], [1, 1, 1, 0, 0, 0]]]
    """
    if iterations < 1 or not dilations or min(dilations) < 1:
        raise SegmentationError(
            f"PAMR needs at least 1 iteration and dilations of at least 1 pixel, not {iterations} and {list(dilations)}"
        )
    weights = _neighbour_weights(image, dilations)
    if masks.shape[1:] != image.shape[1:]:
        masks = interpolate(masks[None], size=image.shape[1:], mode="bilinear", align_corners=True)[0]
    for _ in range(iterations):
        masks = _weighted_sum(masks, weights, dilations)
    return masks


def refine_labels(labels: Int64[Tensor, "y x"], image: Float[Tensor, "3 y x"], settings: Pamr) -> Int64[Tensor, "y x"]:
    """Return the label with the largest refined mask at each pixel, the lower one in ties; see `pamr`."""
    present = labels.unique()
    chunks = present.split(max(1, _MAX_VALUES // labels.numel()))
    masks = ((labels == chunk[:, None, None]).to(image) for chunk in chunks)
    refined = (pamr(image, mask, iterations=settings.iterations, dilations=settings.dilations) for mask in masks)
    return present[argmax_of_chunks(refined)]


def _neighbour_weights(image: Float[Tensor, "3 y x"], dilations: Sequence[int]) -> Float[Tensor, "p y x"]:
    """Return `softmax_p(−mean_c |x_c − x_c(p)| / 0.1 σ_c)` over neighbours p, with the local deviation σ (Eq. 4-5)."""
    neighbours = list(_shifts(image, dilations))
    deviation = torch.stack([*neighbours, *[image] * len(dilations)]).std(0)  # with the pixel, once per dilation
    scale = _EPSILON + _SHARPNESS * deviation
    return torch.stack([-((image - neighbour).abs() / scale).mean(0) for neighbour in neighbours]).softmax(0)


def _weighted_sum(
    masks: Float[Tensor, "k y x"], weights: Float[Tensor, "p y x"], dilations: Sequence[int]
) -> Float[Tensor, "k y x"]:
    """Return `Σ_p w(p) m(p)` over neighbours p (Eq. 6)."""
    total = torch.zeros_like(masks)
    for weight, shifted in zip(weights, _shifts(masks, dilations), strict=True):
        total.addcmul_(weight, shifted)
    return total


def _shifts(maps: Float[Tensor, "c y x"], dilations: Sequence[int]) -> Iterator[Float[Tensor, "c y x"]]:
    """Yield the maps shifted to each neighbour in turn; beyond the border the last pixel is repeated."""
    height, width = maps.shape[1:]
    for dilation in dilations:
        padded = pad(maps, (dilation,) * 4, mode="replicate")
        for down, right in _DIRECTIONS:
            top, left = dilation * (1 + down), dilation * (1 + right)
            yield padded[:, top : top + height, left : left + width]
