"""Upsampling from patches to pixels: score maps, and labels that follow the image's edges."""

from collections.abc import Iterable
from itertools import product

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, UInt8, UInt16
from scipy.ndimage import distance_transform_edt
from skimage.measure import label as label_components
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, interpolate, one_hot

Size = tuple[int, int]  # height and width
_MAX_SCORES = 1 << 24  # upsampled at a time
_MAX_VOTES = 1 << 22  # counted at a time


def leaf_score_maps(
    F: Float[Tensor, "n c"], leaf_of: Int64[Tensor, " n"], grid: Size, *, normalised: bool = True
) -> Float[Tensor, "k h w"]:
    """Return the product of each patch's features with the mean of each leaf `0 … k - 1`, normalised or not."""
    member = one_hot(leaf_of).T.to(F)
    means = (member @ F) / member.sum(1)[:, None]
    scores = (means @ F.T).unflatten(1, grid)
    if not normalised:
        return scores
    return scores / (means @ means.T).diagonal().sqrt().clamp_min(torch.finfo(F.dtype).tiny)[:, None, None]


def assign_pixels(scores: Float[Tensor, "k h w"], size: Size) -> UInt16[np.ndarray, "y x"]:
    """Return the leaf of each pixel of an image of `size`: the one of largest cosine to its mean (DWC 3.6).

    The papers upsample the features of all patches. As upsampling is linear, and the pixel's norm does not change
    which leaf is nearest, upsampling `k` score maps gives the same labels.
    """
    return upsampled_argmax(scores, size).numpy(force=True).astype(np.uint16)


def upsampled_argmax(maps: Float[Tensor, "k h w"], size: Size) -> Int64[Tensor, "y x"]:
    """Return the index of the largest map at each pixel of an image of `size`; maps are upsampled bilinearly."""
    chunks = maps.split(max(1, _MAX_SCORES // (size[0] * size[1])))
    return argmax_of_chunks(
        interpolate(chunk[None], size=size, mode="bilinear", align_corners=False)[0] for chunk in chunks
    )


def argmax_of_chunks(chunks: Iterable[Float[Tensor, "_ y x"]]) -> Int64[Tensor, "y x"]:
    """Return the index of the largest of all maps at each pixel, given a few maps at a time; ties go to the first."""
    best, winner, count = torch.tensor(-torch.inf), torch.tensor(0), 0
    for chunk in chunks:
        score, index = chunk.max(0)
        winner = torch.where(score > best, index + count, winner)
        best = torch.where(score > best, score, best)
        count += len(chunk)
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
    colours = _cell_colours(image, labels.shape)
    rows = max(1, _MAX_VOTES // (9 * image.shape[1]))
    strips = [
        _vote(cells, colours, image[top : top + rows], (top, image.shape[0]), (spatial, colour))
        .numpy(force=True)
        .astype(np.uint16)
        for top in range(0, image.shape[0], rows)
    ]
    upsampled = np.concatenate(strips)
    return remove_small_components(upsampled, upsampled.size / labels.size)


def remove_small_components(labels: UInt16[np.ndarray, "y x"], min_area: float) -> UInt16[np.ndarray, "y x"]:
    """Give connected components of fewer than `min_area` pixels the label of the nearest larger component."""
    is_small = _in_small_components(labels, min_area)
    if not is_small.any() or is_small.all():
        return labels
    nearest = distance_transform_edt(is_small, return_distances=False, return_indices=True)
    cleaned = labels.copy()
    cleaned[is_small] = labels[tuple(nearest[:, is_small])]
    return cleaned


def _in_small_components(labels: UInt16[np.ndarray, "y x"], min_area: float) -> Bool[np.ndarray, "y x"]:
    components = label_components(labels, background=-1, connectivity=1)
    is_small: Bool[np.ndarray, "y x"] = (np.bincount(components.ravel()) < min_area)[components]
    return is_small


def _cell_colours(image: UInt8[Tensor, "y x 3"], grid: Size) -> Float[Tensor, "h w 3"]:
    """Return the mean colour of each cell of a grid, in [0, 1], with one row of cells in memory at a time."""
    height, (rows, columns) = image.shape[0], grid
    colours = torch.empty(3, rows, columns, device=image.device)
    for row in range(rows):
        strip = image[row * height // rows : -(-(row + 1) * height // rows)].permute(2, 0, 1)
        colours[:, row] = adaptive_avg_pool2d(strip.float() / 255, (1, columns))[:, 0]
    return colours.permute(1, 2, 0)


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
    for down, right in product((-1, 0, 1), repeat=2):
        row = (y.round() + down).long().clamp(0, height - 1)
        column = (x.round() + right).long().clamp(0, width - 1)
        distance = ((row - y) ** 2 + (column - x) ** 2) / (2 * scales[0] ** 2)
        difference = (colours[row, column] - pixels).square().sum(2) / (2 * scales[1] ** 2)
        candidates.append(cells[row, column])
        votes.append(torch.exp(-distance - difference))
    labels, weights = torch.stack(candidates), torch.stack(votes)
    totals = ((weights * (labels == label)).sum(0, keepdim=True) for label in labels)
    return labels.gather(0, argmax_of_chunks(totals)[None])[0]
