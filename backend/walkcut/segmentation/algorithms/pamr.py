"""Pixel-adaptive mask refinement (Araslanov & Roth 2020, Eq. 4-6), as DiffCut 3.3 applies it."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import interpolate, pad

from walkcut.errors import SegmentationError

_SHARPNESS = 0.1  # times the local standard deviation, as in the authors' program
_EPSILON = 1e-8
_MAX_VALUES = 1 << 25  # of the masks refined together
_DIRECTIONS = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1) if (down, right) != (0, 0)]


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


def refine_labels(
    labels: Int64[Tensor, "y x"],
    image: Float[Tensor, "3 y x"],
    *,
    iterations: int = 10,
    dilations: Sequence[int] = (1, 2, 4, 8),
) -> Int64[Tensor, "y x"]:
    """Return the label with the largest refined mask at each pixel, the lower one in ties; see `pamr`.

    Masks are refined in chunks of labels, to bound the memory.
    """
    best = torch.full(labels.shape, -torch.inf, device=image.device)
    winner = torch.zeros_like(labels)
    for chunk in labels.unique().split(max(1, _MAX_VALUES // labels.numel())):
        masks = (labels == chunk[:, None, None]).to(image)
        value, index = pamr(image, masks, iterations=iterations, dilations=dilations).max(0)
        winner = torch.where(value > best, chunk[index], winner)
        best = torch.maximum(value, best)
    return winner


def _neighbour_weights(image: Float[Tensor, "3 y x"], dilations: Sequence[int]) -> Float[Tensor, "p y x"]:
    """Return `softmax_p(−mean_c |x_c − x_c(p)| / 0.1 σ_c)` over neighbours p, with the local deviation σ (Eq. 4-5)."""
    deviation = _local_deviation(image, dilations)
    differences = [
        -((image - shifted).abs() / (_EPSILON + _SHARPNESS * deviation)).mean(0)
        for shifted in _shifts(image, dilations)
    ]
    return torch.stack(differences).softmax(0)


def _local_deviation(image: Float[Tensor, "c y x"], dilations: Sequence[int]) -> Float[Tensor, "c y x"]:
    """Return the unbiased standard deviation over the neighbours and, once per dilation, the pixel itself."""
    return torch.stack([*_shifts(image, dilations), *[image] * len(dilations)]).std(0)


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
