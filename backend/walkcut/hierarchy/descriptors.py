"""How segments look: mean features of leaves, and descriptors of any union of them."""

import numpy as np
from jaxtyping import Bool, Float, Float16, Float32, Int64, Real, UInt16
from scipy.sparse import coo_array


def leaf_means(leaves: UInt16[np.ndarray, "y x"], features: Float[np.ndarray, "c h w"]) -> Float16[np.ndarray, "k c"]:
    """Each leaf's mean of the features, up to one factor for the whole image, so that half precision holds them.

    The features' grid may be of another size: each of its cells belongs to the leaf at its middle; a leaf at no cell's
    middle has the cell in which its own middle pixel lies.
    """
    height, width = features.shape[1:]
    cell_leaves = leaves[np.ix_(_middles(leaves.shape[0], height), _middles(leaves.shape[1], width))].ravel()
    missing = np.setdiff1d(np.arange(int(leaves.max()) + 1), cell_leaves)
    cells = [*range(height * width), *(_cell(leaves == leaf, (height, width)) for leaf in missing)]
    entries = np.ones(len(cells)), (np.concatenate([cell_leaves, missing]), cells)
    member = coo_array(entries, dtype=np.float32).tocsr()
    means = (member @ features.reshape(len(features), -1).T) / member.sum(1)[:, None]
    return (means / max(np.abs(means).max(), np.finfo(np.float32).tiny)).astype(np.float16)


def union_descriptors(means: Float16[np.ndarray, "k c"], areas: Real[np.ndarray, "s k"]) -> Float32[np.ndarray, "s c"]:
    """Descriptors of unions of leaves, of unit length; `areas[s]` says how much of each leaf is in union `s`.

    The mean of a union is the weighted mean of its leaves' means. Signed square roots of it, at unit length, are what
    descriptors are compared by (power normalisation, Perronnin et al. 2010, section 3.1): of histograms these are the
    coordinates of the Hellinger distance, and of other features they keep a few large channels from deciding alone.
    """
    sums = areas.astype(np.float64) @ means.astype(np.float64)  # the root of a multiple is one of the root
    roots = np.sign(sums) * np.sqrt(np.abs(sums))
    lengths = np.linalg.norm(roots, axis=1, keepdims=True)
    return (roots / np.maximum(lengths, np.finfo(np.float64).tiny)).astype(np.float32)


def _middles(pixels: int, cells: int) -> Int64[np.ndarray, " c"]:
    """The pixel in the middle of each cell, along one side of an image."""
    return (2 * np.arange(cells) + 1) * pixels // (2 * cells)


def _cell(mask: Bool[np.ndarray, "y x"], grid: tuple[int, int]) -> int:
    """The cell in which the middle one of the mask's pixels lies."""
    pixels = np.argwhere(mask)
    row, column = pixels[len(pixels) // 2] * grid // mask.shape
    return int(row * grid[1] + column)
