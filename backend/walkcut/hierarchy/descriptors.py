"""Descriptors of segments: mean features, positions and areas of leaves, and of any union of leaves."""

import numpy as np
from jaxtyping import Bool, Float, Float16, Float32, Float64, Real, UInt16
from scipy.sparse import coo_array

_ROWS = 256  # of the image at a time, so that a large one takes little memory


def leaf_means(leaves: UInt16[np.ndarray, "y x"], features: Float[np.ndarray, "c h w"]) -> Float16[np.ndarray, "k c"]:
    """Return the mean features of each leaf, scaled by one factor per image to fit half precision.

    The grid of the features may differ from the image's size: a cell belongs to the leaf at its centre, and a leaf at
    no cell's centre takes the cell that contains its middle pixel.
    """
    grid = features.shape[1:]
    centres = (
        (2 * np.arange(cells) + 1) * pixels // (2 * cells) for cells, pixels in zip(grid, leaves.shape, strict=True)
    )
    cell_leaves = leaves[np.ix_(*centres)].ravel()
    missing = np.setdiff1d(np.arange(int(leaves.max()) + 1), cell_leaves)
    cells = [*range(len(cell_leaves)), *(_middle_cell(leaves == leaf, grid) for leaf in missing)]
    entries = np.ones(len(cells)), (np.concatenate([cell_leaves, missing]), cells)
    member = coo_array(entries, dtype=np.float32).tocsr()
    means = (member @ features.reshape(len(features), -1).T) / member.sum(1)[:, None]
    return (means / max(np.abs(means).max(), np.finfo(np.float32).tiny)).astype(np.float16)


def union_descriptors(means: Float16[np.ndarray, "k c"], areas: Real[np.ndarray, "s k"]) -> Float32[np.ndarray, "s c"]:
    """Return unit-length descriptors of unions of leaves; `areas[s]` is the area of each leaf in union `s`.

    The mean of a union is the area-weighted mean of its leaves' means. A descriptor is its signed square root,
    normalised (power normalisation, Perronnin et al. 2010, section 3.1): for histograms that gives the Hellinger
    distance, and for other features it keeps a few large channels from dominating.
    """
    sums = areas.astype(np.float64) @ means.astype(np.float64)  # not divided by the area: the length is normalised
    roots = np.sign(sums) * np.sqrt(np.abs(sums))
    lengths = np.linalg.norm(roots, axis=1, keepdims=True)
    return (roots / np.maximum(lengths, np.finfo(np.float64).tiny)).astype(np.float32)


def leaf_centroids(leaves: UInt16[np.ndarray, "y x"]) -> Float64[np.ndarray, "k 2"]:
    """Return the mean y and x of each leaf's pixels, as fractions of the height and the width."""
    count = int(leaves.max()) + 1
    sums = np.zeros((3, count))
    for top in range(0, len(leaves), _ROWS):
        rows = leaves[top : top + _ROWS]
        y, x = np.indices(rows.shape, np.float32)
        weights = (None, (y.ravel() + top + 0.5) / len(leaves), (x.ravel() + 0.5) / leaves.shape[1])
        sums += [np.bincount(rows.ravel(), weight, count) for weight in weights]
    return np.asarray((sums[1:] / sums[0]).T)


def _middle_cell(mask: Bool[np.ndarray, "y x"], grid: tuple[int, ...]) -> int:
    """Return the cell that contains the mask's middle pixel in reading order."""
    pixels = np.argwhere(mask)
    row, column = pixels[len(pixels) // 2] * grid // mask.shape
    return int(row * grid[1] + column)
