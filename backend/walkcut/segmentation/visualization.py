"""A segmentation drawn over its picture, neighbours in different colours."""

import numpy as np
from jaxtyping import Bool, Int64, Shaped, UInt8
from scipy.ndimage import grey_dilation, grey_erosion

from walkcut.errors import SegmentationError

# Easy to tell apart, for the colour-blind as well (after Tol's and Okabe & Ito's sets).
_PALETTE = np.array(
    [
        [68, 119, 170],
        [238, 119, 51],
        [34, 136, 51],
        [204, 187, 68],
        [170, 51, 119],
        [102, 204, 238],
        [238, 102, 119],
        [0, 158, 115],
    ],
    np.float32,
)
_STRENGTH = 0.45  # of the colour against the picture
_THIN = 400  # pixels of the shorter side for each pixel of an outline's half width


def draw_overlay(image: UInt8[np.ndarray, "y x 3"], labels: Shaped[np.ndarray, "h w"]) -> UInt8[np.ndarray, "y x 3"]:
    """The picture tinted by segment, with white outlines; raises `SegmentationError` where sizes differ."""
    if image.shape[:2] != labels.shape:
        raise SegmentationError(f"labels of {labels.shape} do not fit a picture of {image.shape[:2]}")
    colours = _PALETTE[neighbour_colours(labels, len(_PALETTE))]
    tinted = image * np.float32(1 - _STRENGTH) + colours[labels] * np.float32(_STRENGTH)
    tinted[outlines(labels, width=max(1, round(min(labels.shape) / _THIN)))] = 255
    return tinted.astype(np.uint8)


def outlines(labels: Shaped[np.ndarray, "y x"], *, width: int) -> Bool[np.ndarray, "y x"]:
    """The pixels with another segment at most `width` pixels away along both axes."""
    window = (2 * width + 1, 2 * width + 1)
    return np.asarray(grey_dilation(labels, window, mode="nearest") != grey_erosion(labels, window, mode="nearest"))


def neighbour_colours(labels: Shaped[np.ndarray, "y x"], colours: int) -> Int64[np.ndarray, " k"]:
    """For each label `0 … k - 1` one of so many colours that its neighbours do not have.

    Greedy, smallest degree last: six colours are enough where segments are connected. A label takes the colour that
    fewest of its neighbours have, and among those the one that was used least.
    """
    neighbours = _neighbours(labels)
    chosen = np.full(len(neighbours), -1)
    used = np.zeros(colours, np.int64)
    for label in reversed(_smallest_last(neighbours)):
        taken = np.bincount([chosen[other] for other in neighbours[label] if chosen[other] >= 0], minlength=colours)
        chosen[label] = np.lexsort((used, taken))[0]
        used[chosen[label]] += 1
    return chosen


def _neighbours(labels: Shaped[np.ndarray, "y x"]) -> list[set[int]]:
    """For each label the labels that touch it along an edge of a pixel."""
    count = int(labels.max()) + 1
    sides = [(labels[:-1], labels[1:]), (labels[:, :-1], labels[:, 1:])]
    borders = [(one[one != other].astype(np.int64), other[one != other]) for one, other in sides]
    pairs = np.unique(np.concatenate([one * count + other for one, other in borders]))
    neighbours: list[set[int]] = [set() for _ in range(count)]
    for one, other in zip((pairs // count).tolist(), (pairs % count).tolist(), strict=True):
        neighbours[one].add(other)
        neighbours[other].add(one)
    return neighbours


def _smallest_last(neighbours: list[set[int]]) -> list[int]:
    """Labels in the order of removing, again and again, the one with the fewest neighbours left."""
    left = {label: len(others) for label, others in enumerate(neighbours)}
    order = []
    while left:
        label = min(left, key=lambda candidate: (left[candidate], candidate))
        del left[label]
        order.append(label)
        for other in neighbours[label] & left.keys():
            left[other] -= 1
    return order
