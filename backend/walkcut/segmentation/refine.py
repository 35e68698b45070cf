"""From patches to pixels: whose segment a pixel of the picture belongs to."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped, UInt16
from torch import Tensor
from torch.nn.functional import interpolate, one_hot

_SCORES_AT_ONCE = 1 << 24  # upsampled scores held at a time


@dataclass(frozen=True)
class Scores:
    """How well each patch fits each leaf: all that the assignment of pixels needs, at every granularity.

    `scores[s]` is `F · m_s` on the grid, with the patches' features `F` and their mean `m_s` over leaf `s`;
    `gram[s, t]` is `m_s · m_t`; `patches[s]` counts the leaf's patches.
    """

    scores: Float[Tensor, "k h w"]
    gram: Float[Tensor, "k k"]
    patches: Int64[Tensor, " k"]

    def joined(self, groups: Int64[Tensor, " k"]) -> "Scores":
        """The same for unions of leaves, exactly: the mean of a union is the weighted mean of its parts."""
        member = one_hot(groups).T * self.patches
        shares = (member / member.sum(1, keepdim=True)).to(self.scores)
        joined = torch.einsum("sk,khw->shw", shares, self.scores)
        return Scores(joined, shares @ self.gram @ shares.T, member.sum(1))


def score_leaves(F: Float[Tensor, "n c"], leaf_of: Int64[Tensor, " n"], grid: tuple[int, int]) -> Scores:
    """Scores of all patches, with features `F` (rows, such as those of `P`), for the leaves that they belong to."""
    member = one_hot(leaf_of).T.to(F)
    patches = member.sum(1)
    means = (member @ F) / patches[:, None]
    return Scores((means @ F.T).unflatten(1, grid), means @ means.T, patches.long())


def assign_pixels(scores: Scores, size: tuple[int, int]) -> UInt16[np.ndarray, "y x"]:
    """The segment of each pixel of a picture of `size`: the one whose mean lies nearest in cosine (DWC 3.6).

    The papers upsample the features of all patches and compare. A pixel's own norm does not change the nearest
    segment, and upsampling is linear, so upsampling `K` score maps gives the same answer.
    """
    unit = scores.scores / scores.gram.diagonal().sqrt().clamp_min(torch.finfo(scores.gram.dtype).tiny)[:, None, None]
    best = torch.full(size, -torch.inf, dtype=unit.dtype, device=unit.device)
    segment = torch.zeros(size, dtype=torch.int64, device=unit.device)
    step = max(1, _SCORES_AT_ONCE // (size[0] * size[1]))
    for first in range(0, len(unit), step):
        chunk = interpolate(unit[None, first : first + step], size=size, mode="bilinear", align_corners=False)[0]
        score, label = chunk.max(0)
        better = score > best
        best = torch.where(better, score, best)
        segment = torch.where(better, label + first, segment)
    return segment.cpu().numpy().astype(np.uint16)


def upsample_labels(labels: Shaped[np.ndarray, "h w"], size: tuple[int, int]) -> UInt16[np.ndarray, "y x"]:
    """The label with the largest share among each pixel's four bilinear neighbours.

    This is `assign_pixels` for features that are nothing but the labels themselves (one-hot), at a cost that does not
    depend on the number of labels: borders come out smooth instead of as stairs.
    """
    if labels.shape == size:
        return labels.astype(np.uint16)
    y0, y1, down = _neighbours(labels.shape[0], size[0])
    x0, x1, right = _neighbours(labels.shape[1], size[1])
    fine = np.empty(size, np.uint16)
    rows = max(1, _SCORES_AT_ONCE // (8 * size[1]))
    for top in range(0, size[0], rows):
        part = slice(top, top + rows)
        corners = [labels[y][:, x] for y in (y0[part], y1[part]) for x in (x0, x1)]
        shares = [v[:, None] * h for v in (1 - down[part], down[part]) for h in (1 - right, right)]
        fine[part] = _largest_share(corners, shares)
    return fine


def _neighbours(
    coarse: int, fine: int
) -> tuple[Int64[np.ndarray, " f"], Int64[np.ndarray, " f"], Float[np.ndarray, " f"]]:
    """Per fine place its two coarse neighbours and the second one's share, as bilinear interpolation has them."""
    place = np.clip((np.arange(fine) + 0.5) * coarse / fine - 0.5, 0, coarse - 1)
    before = place.astype(np.int64)
    return before, np.minimum(before + 1, coarse - 1), (place - before).astype(np.float32)


def _largest_share(
    corners: list[Shaped[np.ndarray, "y x"]], shares: list[Float[np.ndarray, "y x"]]
) -> Shaped[np.ndarray, "y x"]:
    """Per pixel the label whose corners hold the largest share together; ties go to the earlier corner."""
    winner, most = corners[0], np.full(corners[0].shape, -1.0, np.float32)
    for corner in corners:
        share = sum(np.where(other == corner, part, 0) for other, part in zip(corners, shares, strict=True))
        better = share > most
        winner, most = np.where(better, corner, winner), np.where(better, share, most)
    return winner
