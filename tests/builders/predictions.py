"""Predictions for tests of the output formats."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tests.builders.label_config import make_image_tag
from walkcut import load_segmenter
from walkcut.bulk.items import EncodedItem, Item, ItemPrediction, RegionPrediction
from walkcut.hierarchy.granularity import Segments
from walkcut.images import DecodeLimits, decode
from walkcut.labelstudio.predictions import Region

SAMPLE = Path(__file__).parents[2] / "labelstudio_config" / "sample.jpg"
CLASSES = ("Region", "Background", "Region B")
NUMBERS = {name: number for number, name in enumerate(CLASSES)}
IMAGE_TAG = make_image_tag("$image", ("Region", "Region B"), labels=CLASSES)


def make_prediction(labels: np.ndarray, key: str = "one", *, version: str = "v1", **item: Any) -> ItemPrediction:
    """Return an image with the regions 1 … of a label map in this order, 0 in none."""
    indices = [index for index in range(1, int(labels.max(initial=0)) + 1) if (labels == index).any()]
    regions = [Region(labels == index, CLASSES[index % 3], index / 64) for index in indices]
    fields = {"reference": f"/in/{key}.jpg", "data": {"image": f"{key}.jpg"}, "name": f"{key}.jpg"} | item
    return ItemPrediction(Item(key, **fields), labels.shape, [RegionPrediction(version, regions)])


def file_contents(encoded: EncodedItem) -> dict[str, bytes]:
    """Return the files of an image that are no links."""
    return {name: content for name, content in encoded.files.items() if isinstance(content, bytes)}


def expected_label_map(image: ItemPrediction) -> np.ndarray:
    """Return the label map of an image's default prediction, numbered from 1."""
    labels = np.zeros(image.size, np.int64)
    for index, region in enumerate(image.predictions[-1].regions, 1):
        labels[region.mask] = index
    return labels


def nearest_seed_map(seeds: list[tuple[int, int]]) -> np.ndarray:
    """Return the index of the seed nearest to each pixel, from 0: regions with straight, slanting borders."""
    y, x = np.mgrid[:30, :40]
    return np.argmin([(y - row) ** 2 + (x - column) ** 2 for row, column in seeds], 0)


noisy_maps = arrays.arrays(
    np.uint8, arrays.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(0, 3)
)
smooth_maps = st.lists(st.tuples(st.integers(0, 29), st.integers(0, 39)), min_size=1, max_size=7, unique=True).map(
    nearest_seed_map
)
label_maps = noisy_maps | smooth_maps


@cache
def sample_prediction() -> ItemPrediction:
    """Return walkcut's sample image with 12 segments of the classical model."""
    tree = load_segmenter("classical").segment(decode(SAMPLE.read_bytes(), DecodeLimits()))
    return make_prediction(tree.labels(Segments(12)).astype(np.int64), "sample")


def fill_even_odd(rings: list[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """Return the pixels whose centre has an odd number of the rings' edges to its right: slow, but simple."""
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    inside = np.zeros(size, bool)
    for ring in rings:
        for start, end in zip(ring, np.roll(ring, -1, axis=0), strict=True):
            (x0, y0), (x1, y1) = sorted((tuple(start), tuple(end)), key=lambda point: (point[1], point[0]))
            if y0 != y1:
                inside ^= (y0 < y) & (y < y1) & (x < x0 + (y - y0) * (x1 - x0) / (y1 - y0))
    return inside


def iou(mask: np.ndarray, expected: np.ndarray) -> float:
    """Return the intersection over union of two masks."""
    return float((mask & expected).sum() / (mask | expected).sum())
