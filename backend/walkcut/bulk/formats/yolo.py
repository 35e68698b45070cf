"""YOLO's segmentation labels."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float
from scipy.spatial.distance import cdist

from walkcut.bulk.formats.label_maps import class_number, default_regions, label_map
from walkcut.bulk.formats.polygonize import Points, Polygon, checked_tolerance, polygons
from walkcut.bulk.formats.writers import file_name
from walkcut.bulk.items import EncodedItem, ItemPrediction
from walkcut.storage import atomic_file


@dataclass(frozen=True)
class YoloFormat:
    """Labels as ultralytics trains on: a line `class x1 y1 x2 y2 …` for each connected part of a region.

    Coordinates are shares of the image's width and height, on the edges of pixels. A hole is cut in from the outer
    border along a line there and back, which has no area: lines are filled by the even-odd rule. `polygons` says how
    true they are to a `tolerance` in pixels; a reader that paints outlines besides, as ultralytics does, makes regions
    up to a pixel larger. Images belong into the folder `images` under the names of their labels.
    """

    name: ClassVar[str] = "yolo"
    classes: tuple[str, ...]
    tolerance: float = 1.0

    def __post_init__(self) -> None:
        checked_tolerance(self.tolerance)

    def encode(self, image: ItemPrediction) -> EncodedItem:
        """labels/KEY.txt, empty for an image without regions. Raises `SettingsError` for a label not in `classes`."""
        numbers = [class_number(region.label, self.classes) for region in default_regions(image)]
        size = np.array([image.size[1], image.size[0]])
        lines = [
            f"{numbers[polygon.number - 1]} {_coordinates(_one_ring(polygon) / size)}\n"
            for polygon in polygons(label_map(image), self.tolerance)
        ]
        file = f"labels/{file_name(image.item.key, '.txt')}"
        return EncodedItem({file: "".join(lines).encode()}, {"key": image.item.key})

    def assemble(self, records: Iterable[Mapping[str, Any]], out: Path) -> None:  # noqa: ARG002 - the protocol's
        """Write `data.yaml`: all images to train on and, until you part them, to validate on."""
        out.mkdir(parents=True, exist_ok=True)
        names = [f"  {number}: {json.dumps(name, ensure_ascii=False)}" for number, name in enumerate(self.classes)]
        lines = ["train: images", "val: images", "names:", *names]
        with atomic_file(out / "data.yaml") as write:
            write("".join(f"{line}\n" for line in lines).encode())


def _one_ring(polygon: Polygon) -> Points:
    """The polygon's outer ring with its holes cut in, each from the nearest point of what there is."""
    ring = polygon.outer
    for hole in polygon.holes:
        start, end = np.unravel_index(cdist(ring, hole).argmin(), (len(ring), len(hole)))
        inner = np.roll(hole, -end, axis=0)
        ring = np.concatenate([ring[: start + 1], inner, inner[:1], ring[start:]])
    return ring


def _coordinates(points: Float[np.ndarray, "n 2"]) -> str:
    """x and y of each point in turn."""
    return " ".join(f"{value:.6f}" for value in points.ravel().tolist())
