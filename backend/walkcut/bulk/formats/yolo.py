"""YOLO's segmentation labels."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from scipy.spatial.distance import cdist

from walkcut.bulk.formats.polygonize import DEFAULT_TOLERANCE, Points, Polygon, polygons
from walkcut.bulk.formats.records import Records, class_index, file_name, label_map
from walkcut.bulk.items import EncodedItem, ItemPrediction
from walkcut.storage import atomic_file


@dataclass(frozen=True)
class YoloFormat:
    """Labels for training with ultralytics: a line `class x1 y1 x2 y2 …` for each connected part of a region.

    Coordinates are corners of pixels, as fractions of the image's width and height. A hole is joined to the outer ring
    by a line there and back, which has no area under the even-odd rule. For the `tolerance` in pixels see `polygons`;
    a reader that draws outlines too, as ultralytics does, makes regions up to a pixel larger. Images belong into the
    folder `images` under the names of their labels.
    """

    name: ClassVar[str] = "yolo"
    classes: tuple[str, ...]
    tolerance: float = DEFAULT_TOLERANCE

    def encode(self, image: ItemPrediction) -> EncodedItem:
        """Return labels/KEY.txt, empty if there are no regions. Raises `SettingsError` for a label not in `classes`."""
        class_indices = [class_index(region.label, self.classes) for region in image.predictions[-1].regions]
        lines = []
        for polygon in polygons(label_map(image), self.tolerance):
            points = _single_ring(polygon) / np.array(image.size[::-1])
            coordinates = [f"{value:.6f}" for value in points.ravel().tolist()]
            lines.append(f"{class_indices[polygon.region - 1]} {' '.join(coordinates)}\n")
        file = f"labels/{file_name(image.item.key, '.txt')}"
        return EncodedItem({file: "".join(lines).encode()}, {"key": image.item.key})

    def assemble(self, records: Records, output_dir: Path) -> None:  # noqa: ARG002 - the protocol's
        """Write `data.yaml`, which names all images for training and, until you split them, for validation."""
        output_dir.mkdir(parents=True, exist_ok=True)
        names = [f"  {index}: {json.dumps(name, ensure_ascii=False)}\n" for index, name in enumerate(self.classes)]
        with atomic_file(output_dir / "data.yaml") as write:
            write("".join(["train: images\nval: images\nnames:\n", *names]).encode())


def _single_ring(polygon: Polygon) -> Points:
    """Return the outer ring with the holes joined to it, each at the nearest pair of points."""
    ring, *holes = polygon.rings
    for hole in holes:
        start, end = np.unravel_index(cdist(ring, hole).argmin(), (len(ring), len(hole)))
        inner = np.roll(hole, -end, axis=0)
        ring = np.concatenate([ring[: start + 1], inner, inner[:1], ring[start:]])
    return ring
