"""COCO's instance and panoptic annotations."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Bool

from walkcut.bulk.formats import rle
from walkcut.bulk.formats.label_maps import class_number, default_regions, label_map
from walkcut.bulk.formats.writers import Rows, file_name, image_name, to_png, write_object
from walkcut.bulk.items import EncodedItem, ItemPrediction

_FOLDER = "panoptic"


@dataclass(frozen=True)
class CocoFormat:
    """The default labelling twice: as instances, `annotations.json`, and as `panoptic.json` with images of ids.

    Categories are numbered from 1 in the order of `classes`, images from 1 in the order of their keys. Each
    annotation has the region's `score` besides.
    """

    name: ClassVar[str] = "coco"
    classes: tuple[str, ...]

    def encode(self, image: ItemPrediction) -> EncodedItem:
        """panoptic/KEY.png with numbers of segments as R + 256·G, 0 for none, and a record of regions.

        Raises `SettingsError` for a label not in `classes`.
        """
        labels = label_map(image)
        height, width = image.size
        file = file_name(image.item.key, ".png")
        numbers = np.stack([labels & 255, labels >> 8, np.zeros_like(labels)], -1).astype(np.uint8)
        regions = [
            {
                "category_id": class_number(region.label, self.classes) + 1,
                "area": int(np.count_nonzero(region.mask)),
                "bbox": bounding_box(region.mask),
                "iscrowd": 0,
                "score": region.score,
                "counts": rle.encode(region.mask),
            }
            for region in default_regions(image)
        ]
        image_info = {"file_name": image_name(image.item), "width": width, "height": height}
        return EncodedItem(
            {f"{_FOLDER}/{file}": to_png(numbers)}, {"image": image_info, "file": file, "regions": regions}
        )

    def assemble(self, records: Iterable[Mapping[str, Any]], out: Path) -> None:
        """Write `annotations.json` and `panoptic.json`; until then their rows are in files without a name."""
        out.mkdir(parents=True, exist_ok=True)
        with ExitStack() as open_files:
            images, instances, panoptic = (Rows(open_files.enter_context(TemporaryFile(dir=out))) for _ in range(3))
            annotation = 0
            for number, record in enumerate(records, 1):
                images.add({"id": number, **record["image"]})
                panoptic.add(
                    {"image_id": number, "file_name": record["file"], "segments_info": list(_segments(record))}
                )
                for region in _instances(record):
                    annotation += 1
                    instances.add({"id": annotation, "image_id": number, **region})
            head = {"info": {"description": "walkcut"}, "licenses": [], "categories": self._categories()}
            write_object({**head, "images": images, "annotations": instances}, out / "annotations.json")
            write_object({**head, "images": images, "annotations": panoptic}, out / "panoptic.json")

    def _categories(self) -> list[dict[str, Any]]:
        return [
            {"id": number, "name": name, "supercategory": "", "isthing": 1}
            for number, name in enumerate(self.classes, 1)
        ]


def bounding_box(mask: Bool[np.ndarray, "y x"]) -> list[int]:
    """COCO's [x, y, width, height] of a mask; zeros for one without a pixel."""
    box = []
    for axis in (0, 1):
        inside = np.flatnonzero(mask.any(axis))
        box.append((int(inside[0]), int(inside[-1]) + 1) if inside.size else (0, 0))
    (left, right), (top, bottom) = box
    return [left, top, right - left, bottom - top]


def _instances(record: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Regions as instance annotations hold them."""
    size = [record["image"]["height"], record["image"]["width"]]
    for region in record["regions"]:
        others = {name: value for name, value in region.items() if name != "counts"}
        yield {**others, "segmentation": {"size": size, "counts": region["counts"]}}


def _segments(record: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Regions as panoptic annotations hold them, under their numbers in the image of ids."""
    for number, region in enumerate(record["regions"], 1):
        yield {"id": number, **{name: value for name, value in region.items() if name != "counts"}}
