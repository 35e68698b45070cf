"""Embeddings: learned features or attention of patches as short vectors, whose distances say what belongs together."""

from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from walkcut.backbones.resize import resample

MAX_CHANNELS: Final = 32  # merging takes seconds with hundreds
_MAX_TARGETS = 16  # patches on the longest side, to which attention is summed
_FLOOR = 1e-3  # of the mean length of features: what is left of shorter ones is rounding


def embed_features(
    feature_map: Float[Tensor, "c h w"], size: tuple[int, int], *, without_position: bool = False
) -> Float[Tensor, "d y x"]:
    """Return the features' directions, in at most 32 principal components, at `size` (height, width).

    Directions have length 1, so that a quarter of the squared distance between two is at most 1.
    """
    features = feature_map.float()
    if features.shape[1] > size[0]:  # hundreds of channels take much memory
        features = resample(features, size)
    floor = _FLOOR * float(features.norm(dim=0).mean()) + torch.finfo(torch.float32).tiny
    if without_position:
        features = remove_position(features)
    directions = features / features.norm(dim=0).clamp_min(floor)
    return resample(principal_components(directions), size)


def embed_attention(
    weights: Float[Tensor, "n n"], grid: tuple[int, int], size: tuple[int, int]
) -> Float[Tensor, "d y x"]:
    """Return the root of each patch's attention to areas of the image, in at most 32 principal components, at `size`.

    They have length √2, so that a quarter of the squared distance is the squared Hellinger distance, at most 1.
    """
    scale = min(1.0, _MAX_TARGETS / max(grid))
    height, width = (max(1, round(side * scale)) for side in grid)
    areas = adaptive_avg_pool2d(weights.float().unflatten(1, grid), (height, width)).flatten(1)
    roots = (2 * areas / areas.sum(1, keepdim=True)).sqrt()
    return resample(principal_components(roots.T.unflatten(1, grid)), size)


def remove_position(feature_map: Float[Tensor, "c h w"]) -> Float[Tensor, "c h w"]:
    """Return the features less their least-squares fit on the position, `a + b y + c x` for each channel.

    A vision transformer adds to its features a term of the position alone (Yang et al., Denoising Vision Transformers,
    2024). As in Venkataramanan et al. (Franca, 2025), what is linear in the position is removed; here from each image
    by itself, without training.
    """
    _, height, width = feature_map.shape
    y, x = (torch.arange(side).to(feature_map) - (side - 1) / 2 for side in (height, width))
    down, right = y[:, None].expand(height, width), x.expand(height, width)
    basis = torch.stack([torch.ones_like(down), down, right]).flatten(1)  # its rows are orthogonal
    values = feature_map.flatten(1)
    coefficients = values @ basis.T / basis.square().sum(1).clamp_min(1)
    return (values - coefficients @ basis).unflatten(1, (height, width))


def principal_components(vectors: Float[Tensor, "c h w"], count: int = MAX_CHANNELS) -> Float[Tensor, "d h w"]:
    """Return the vectors, less their mean, along the `count` directions of most variance; unchanged if not longer."""
    if len(vectors) <= count:
        return vectors
    X = vectors.flatten(1)
    X = X - X.mean(1, keepdim=True)
    _, directions = torch.linalg.eigh(X @ X.T)  # in the order of their variance
    return (directions[:, -count:].T @ X).unflatten(1, vectors.shape[1:])
