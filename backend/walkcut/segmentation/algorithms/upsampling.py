"""Upsampling from patches to pixels: score maps, and labels that follow the image's edges."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8, UInt16
from scipy.ndimage import distance_transform_edt
from skimage.measure import label as label_components
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, interpolate, one_hot

_MAX_SCORES = 1 << 24  # upsampled at a time
_MAX_VOTES = 1 << 22  # counted at a time


@dataclass(frozen=True)
class ScoreMaps:
    """Similarity of each patch to each leaf.

    With features `F` of the patches and their mean `m_s` over leaf `s`, `scores[s]` is `F · m_s` on the grid of patches
    and `norms[s]` is `‖m_s‖`.
    """

    scores: Float[Tensor, "k h w"]
    norms: Float[Tensor, " k"]


def leaf_score_maps(F: Float[Tensor, "n c"], leaf_of: Int64[Tensor, " n"], grid: tuple[int, int]) -> ScoreMaps:
    """Return the score maps of the leaves `0 … k - 1` that the patches belong to.

    `F` holds a row of features for each patch, such as the rows of `P`.
    """
    member = one_hot(leaf_of).T.to(F)
    means = (member @ F) / member.sum(1)[:, None]
    return ScoreMaps((means @ F.T).unflatten(1, grid), (means @ means.T).diagonal().sqrt())


def assign_pixels(maps: ScoreMaps, size: tuple[int, int]) -> UInt16[np.ndarray, "y x"]:
    """Return the leaf of each pixel of an image of `size`: the one of largest cosine to its mean (DWC 3.6).

    The papers upsample the features of all patches. As upsampling is linear, and the pixel's norm does not change
    which leaf is nearest, upsampling `k` score maps gives the same labels.
    """
    norms = maps.norms.clamp_min(torch.finfo(maps.norms.dtype).tiny)
    return upsampled_argmax(maps.scores / norms[:, None, None], size).cpu().numpy().astype(np.uint16)


def upsampled_argmax(maps: Float[Tensor, "k h w"], size: tuple[int, int]) -> Int64[Tensor, "y x"]:
    """Return the index of the largest map at each pixel of an image of `size`, maps being upsampled bilinearly.

    Ties go to the first map. A few maps are upsampled at a time.
    """
    best = torch.full(size, -torch.inf, dtype=maps.dtype, device=maps.device)
    winner = torch.zeros(size, dtype=torch.int64, device=maps.device)
    step = max(1, _MAX_SCORES // (size[0] * size[1]))
    for first in range(0, len(maps), step):
        chunk = interpolate(maps[None, first : first + step], size=size, mode="bilinear", align_corners=False)[0]
        score, index = chunk.max(0)
        better = score > best
        best = torch.where(better, score, best)
        winner = torch.where(better, index + first, winner)
    return winner


def joint_bilateral_upsample(
    labels: Int64[np.ndarray, "h w"], image: UInt8[Tensor, "y x 3"], *, spatial: float = 1.0, colour: float = 0.1
) -> UInt16[np.ndarray, "y x"]:
    """Return labels of a smaller grid at the image's size, with borders that follow its edges (Kopf et al. 2007).

    The nine nearest cells of the grid vote for their labels, weighted by Gaussians of distance (`spatial`, in cells)
    and of colour difference (`colour`, of sRGB in [0, 1]). Components smaller than a cell are then removed.
    """
    if labels.shape == image.shape[:2]:
        return labels.astype(np.uint16)
    cells = torch.from_numpy(labels).to(image.device)
    means = adaptive_avg_pool2d(image.permute(2, 0, 1).float() / 255, labels.shape)
    colours = means.permute(1, 2, 0)
    rows = max(1, _MAX_VOTES // (9 * image.shape[1]))
    strips = [
        _vote(cells, colours, image[top : top + rows], (top, image.shape[0]), (spatial, colour))
        for top in range(0, image.shape[0], rows)
    ]
    return remove_small_components(
        torch.cat(strips).cpu().numpy().astype(np.uint16), image[..., 0].numel() / labels.size
    )


def remove_small_components(labels: UInt16[np.ndarray, "y x"], min_area: float) -> UInt16[np.ndarray, "y x"]:
    """Give connected components of fewer than `min_area` pixels the label of the nearest larger component."""
    components = label_components(labels, background=-1, connectivity=1)
    is_small = (np.bincount(components.ravel()) < min_area)[components]
    if not is_small.any() or is_small.all():
        return labels
    rows, columns = distance_transform_edt(is_small, return_distances=False, return_indices=True)
    return labels[rows, columns]


def _vote(
    cells: Int64[Tensor, "h w"],
    colours: Float[Tensor, "h w 3"],
    strip: UInt8[Tensor, "s x 3"],
    position: tuple[int, int],
    scales: tuple[float, float],
) -> Int64[Tensor, "s x"]:
    """Return the winning labels of a strip of rows at `position` (first row, number of rows of the whole image)."""
    (height, width), (top, rows) = cells.shape, position
    y = ((torch.arange(len(strip), device=strip.device) + top + 0.5) * height / rows - 0.5)[:, None]
    x = ((torch.arange(strip.shape[1], device=strip.device) + 0.5) * width / strip.shape[1] - 0.5)[None]
    pixels = strip / 255
    candidates, votes = [], []
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            row = (y.round() + down).long().clamp(0, height - 1)
            column = (x.round() + right).long().clamp(0, width - 1)
            distance = ((row - y) ** 2 + (column - x) ** 2) / (2 * scales[0] ** 2)
            difference = (colours[row, column] - pixels).square().sum(2) / (2 * scales[1] ** 2)
            candidates.append(cells[row, column])
            votes.append(torch.exp(-distance - difference))
    return _majority(torch.stack(candidates), torch.stack(votes))


def _majority(candidates: Int64[Tensor, "c s x"], votes: Float[Tensor, "c s x"]) -> Int64[Tensor, "s x"]:
    """Return for each pixel the candidate with the most votes in total, the earlier one in ties."""
    winner, best = candidates[0], torch.full_like(votes[0], -1)
    for candidate in candidates:
        total = (votes * (candidates == candidate)).sum(0)
        winner = torch.where(total > best, candidate, winner)
        best = torch.maximum(total, best)
    return winner
