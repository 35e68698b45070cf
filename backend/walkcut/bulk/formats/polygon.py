"""Polygons as JSON Lines."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from walkcut.bulk.formats.records import Records, image_record, label_map, label_name, write_lines
from walkcut.bulk.items import EncodedItem, ItemPrediction
from walkcut.masks.polygons import DEFAULT_TOLERANCE, polygons


@dataclass(frozen=True)
class PolygonFormat:
    """A line of JSON for each image: the regions of its default prediction, each with a list of polygons.

    A polygon is a list of rings, as in GeoJSON: the outer one, then its holes; a ring is a list of corners [x, y], the
    first one not repeated. Corners are corners of pixels: [0, 0] is the image's upper left corner, [width, height] its
    lower right one. For the `tolerance` in pixels see `polygons`.
    """

    name: ClassVar[str] = "polygon"
    tolerance: float = DEFAULT_TOLERANCE

    def encode(self, image: ItemPrediction) -> EncodedItem:
        """Return no file, and the line as record."""
        regions: list[dict[str, Any]] = [
            {"label": label_name(region.label), "score": region.score, "polygons": []}
            for region in image.predictions[-1].regions
        ]
        for polygon in polygons(label_map(image), self.tolerance):
            regions[polygon.region - 1]["polygons"].append([ring.tolist() for ring in polygon.rings])
        return EncodedItem({}, {**image_record(image), "tolerance": self.tolerance, "regions": regions})

    def assemble(self, records: Records, output_dir: Path) -> None:
        """Write `polygons.jsonl`, a line for each image."""
        write_lines(records, output_dir / "polygons.jsonl")
