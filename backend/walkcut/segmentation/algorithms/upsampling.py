"""Upsampling from patches to pixels: score maps, and the label of the largest."""

from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt16
from torch import Tensor
from torch.nn.functional import interpolate, one_hot

Size = tuple[int, int]  # height and width
_MAX_SCORES = 1 << 24  # upsampled at a time


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
