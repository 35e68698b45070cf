"""Labellings made for tests of the formats."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from walkcut import load_segmenter
from walkcut.bulk.items import Item, ItemPrediction, RegionPrediction
from walkcut.hierarchy.granularity import Segments
from walkcut.images import DecodeLimits, decode
from walkcut.labelstudio import BrushControl, Region

SAMPLE = Path(__file__).parents[2] / "labelstudio_config" / "sample.jpg"
NAMES = ("Region", "Background", "Region B")
CONTROL = BrushControl("brush", "image", "image", ("Region", "Region B"), labels=NAMES)


def labelled(labels: np.ndarray, key: str = "one", *, version: str = "v1", **item: Any) -> ItemPrediction:
    """An image with the regions 1 … of a map in this order, 0 in none."""
    names = [number for number in range(1, int(labels.max(initial=0)) + 1) if (labels == number).any()]
    regions = [Region(labels == number, NAMES[number % 3], number / 64) for number in names]
    given = {"reference": f"{key}.jpg", "data": {"image": f"{key}.jpg"}} | item
    return ItemPrediction(Item(key, **given), labels.shape, [RegionPrediction(version, regions)])


def numbered(image: ItemPrediction) -> np.ndarray:
    """The map of an image's default regions, numbered from 1."""
    labels = np.zeros(image.size, np.int64)
    for number, region in enumerate(image.predictions[-1].regions, 1):
        labels[region.mask] = number
    return labels


def nearest(seeds: list[tuple[int, int]]) -> np.ndarray:
    """A map in which each pixel has the number of the nearest seed, from 0; regions with straight, slanting borders."""
    y, x = np.mgrid[:30, :40]
    return np.argmin([(y - row) ** 2 + (x - column) ** 2 for row, column in seeds], 0)


noisy_maps = arrays.arrays(
    np.uint8, arrays.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(0, 3)
)
smooth_maps = st.lists(st.tuples(st.integers(0, 29), st.integers(0, 39)), min_size=1, max_size=7, unique=True).map(
    nearest
)
label_maps = noisy_maps | smooth_maps


@cache
def sample() -> ItemPrediction:
    """walkcut's sample image as it would be labelled in earnest."""
    tree = load_segmenter("classical").segment(decode(SAMPLE.read_bytes(), DecodeLimits()))
    return labelled(tree.labels(Segments(12)).astype(np.int64), "sample")


def even_odd(rings: list[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """The pixels whose centre has an odd number of the rings' edges to its right: the slow truth."""
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    inside = np.zeros(size, bool)
    for ring in rings:
        for one, other in zip(ring, np.roll(ring, -1, axis=0), strict=True):
            (x0, y0), (x1, y1) = sorted((tuple(one), tuple(other)), key=lambda point: (point[1], point[0]))
            if y0 != y1:
                inside ^= (y0 < y) & (y < y1) & (x < x0 + (y - y0) * (x1 - x0) / (y1 - y0))
    return inside


def iou(one: np.ndarray, other: np.ndarray) -> float:
    """The share of pixels in both among those in either."""
    return float((one & other).sum() / (one | other).sum())
