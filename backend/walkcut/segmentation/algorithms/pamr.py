"""Pixel-adaptive mask refinement (Araslanov & Roth 2020, Eq. 4-6), as DiffCut 3.3 applies it."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import interpolate, pad

from walkcut.errors import SegmentationError

_SHARPNESS = 0.1  # of the local standard deviation; the authors' constant
_EPSILON = 1e-8
_VALUES_AT_ONCE = 1 << 25  # of masks refined together
_AROUND = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1) if (down, right) != (0, 0)]


def pamr(
    image: Float[Tensor, "3 y x"],
    masks: Float[Tensor, "k h w"],
    *,
    iterations: int = 10,
    dilations: Sequence[int] = (1, 2, 4, 8),
) -> Float[Tensor, "k y x"]:
    """Let each pixel's masks follow those of its neighbours that look like it, `iterations` times.

    The image is in [0, 1]; masks of another size are brought to the image's. Neighbours are the eight at each of the
    `dilations`, in pixels. No more than one shifted copy of the masks is alive at a time. Raises `SegmentationError`
    without an iteration or a dilation.
    """
    if iterations < 1 or not dilations or min(dilations) < 1:
        raise SegmentationError(
            f"refinement needs 1 iteration and dilations of 1 pixel at least, not {iterations} and {list(dilations)}"
        )
    weights = neighbour_weights(image, dilations)
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
    """The label whose mask is the strongest at each pixel once PAMR has refined them; ties go to the lower label.

    Masks are refined independently of each other, few at a time.
    """
    best = torch.full(labels.shape, -torch.inf, device=image.device)
    winner = torch.zeros_like(labels)
    for numbers in labels.unique().split(max(1, _VALUES_AT_ONCE // labels.numel())):
        masks = (labels == numbers[:, None, None]).to(image)
        strength, index = pamr(image, masks, iterations=iterations, dilations=dilations).max(0)
        winner = torch.where(strength > best, numbers[index], winner)
        best = torch.maximum(strength, best)
    return winner


def neighbour_weights(image: Float[Tensor, "3 y x"], dilations: Sequence[int]) -> Float[Tensor, "p y x"]:
    """`softmax_p(−mean_c |x_c − x_c(p)| / 0.1 σ_c)` over the neighbours p, with each pixel's local deviation σ."""
    deviation = _local_deviation(image, dilations)
    differences = [
        -((image - shifted).abs() / (_EPSILON + _SHARPNESS * deviation)).mean(0)
        for shifted in _shifts(image, dilations)
    ]
    return torch.stack(differences).softmax(0)


def _local_deviation(image: Float[Tensor, "c y x"], dilations: Sequence[int]) -> Float[Tensor, "c y x"]:
    """The standard deviation over the neighbours and, once for each dilation, the pixel itself (unbiased)."""
    return torch.stack([*_shifts(image, dilations), *[image] * len(dilations)]).std(0)


def _weighted_sum(
    masks: Float[Tensor, "k y x"], weights: Float[Tensor, "p y x"], dilations: Sequence[int]
) -> Float[Tensor, "k y x"]:
    """`Σ_p w(p) m(p)` over the neighbours p."""
    total = torch.zeros_like(masks)
    for weight, shifted in zip(weights, _shifts(masks, dilations), strict=True):
        total.addcmul_(weight, shifted)
    return total


def _shifts(maps: Float[Tensor, "c y x"], dilations: Sequence[int]) -> Iterator[Float[Tensor, "c y x"]]:
    """The maps as seen from each neighbour in turn; beyond the border they repeat the last pixel."""
    height, width = maps.shape[1:]
    for dilation in dilations:
        padded = pad(maps, (dilation,) * 4, mode="replicate")
        for down, right in _AROUND:
            top, left = dilation * (1 + down), dilation * (1 + right)
            yield padded[:, top : top + height, left : left + width]
