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
from walkcut.bulk.formats.files import ArrayFile, file_name, image_name, write_object
from walkcut.bulk.formats.label_maps import class_index, default_label_map, default_regions
from walkcut.bulk.items import EncodedItem, ItemPrediction
from walkcut.images.encode import encode_png
from walkcut.labelstudio.predictions import Region

_FOLDER = "panoptic"


@dataclass(frozen=True)
class CocoFormat:
    """The default prediction as instances, `annotations.json`, and as `panoptic.json` with images of ids.

    Categories have ids from 1 in the order of `classes`, images from 1 in the order of their keys. Each annotation has
    the region's `score` as an extra field.
    """

    name: ClassVar[str] = "coco"
    classes: tuple[str, ...]

    def encode(self, image: ItemPrediction) -> EncodedItem:
        """Return panoptic/KEY.png, with ids of regions as R + 256·G and 0 for none, and a record of the regions.

        Raises `SettingsError` for a label not in `classes`.
        """
        labels = default_label_map(image)
        height, width = image.size
        file = file_name(image.item.key, ".png")
        ids = np.stack([labels & 255, labels >> 8, np.zeros_like(labels)], -1).astype(np.uint8)
        image_info = {"file_name": image_name(image.item), "width": width, "height": height}
        regions = [self._encode_region(region) for region in default_regions(image)]
        return EncodedItem(
            {f"{_FOLDER}/{file}": encode_png(ids)}, {"image": image_info, "file": file, "regions": regions}
        )

    def _encode_region(self, region: Region) -> dict[str, Any]:
        return {
            "category_id": class_index(region.label, self.classes) + 1,
            "area": int(np.count_nonzero(region.mask)),
            "bbox": bounding_box(region.mask),
            "iscrowd": 0,
            "score": region.score,
            "counts": rle.encode(region.mask),
        }

    def assemble(self, records: Iterable[Mapping[str, Any]], output_dir: Path) -> None:
        """Write `annotations.json` and `panoptic.json`; their arrays are collected in unnamed files."""
        output_dir.mkdir(parents=True, exist_ok=True)
        with ExitStack() as files:
            images, instances, panoptic = (
                ArrayFile(files.enter_context(TemporaryFile(dir=output_dir))) for _ in range(3)
            )
            instance_id = 0
            for image_id, record in enumerate(records, 1):
                images.add({"id": image_id, **record["image"]})
                segments = list(_panoptic_segments(record))
                panoptic.add({"image_id": image_id, "file_name": record["file"], "segments_info": segments})
                for instance in _instances(record):
                    instance_id += 1
                    instances.add({"id": instance_id, "image_id": image_id, **instance})
            head = {"info": {"description": "walkcut"}, "licenses": [], "categories": self._categories()}
            write_object({**head, "images": images, "annotations": instances}, output_dir / "annotations.json")
            write_object({**head, "images": images, "annotations": panoptic}, output_dir / "panoptic.json")

    def _categories(self) -> list[dict[str, Any]]:
        return [
            {"id": index, "name": name, "supercategory": "", "isthing": 1} for index, name in enumerate(self.classes, 1)
        ]


def bounding_box(mask: Bool[np.ndarray, "y x"]) -> list[int]:
    """Return COCO's [x, y, width, height] of a mask; zeros for an empty one.

    >>> bounding_box(np.array([[False, False, False], [False, True, True]]))
    [1, 1, 2, 1]
    """
    ranges = []
    for axis in (0, 1):
        inside = np.flatnonzero(mask.any(axis))
        ranges.append((int(inside[0]), int(inside[-1]) + 1) if inside.size else (0, 0))
    (left, right), (top, bottom) = ranges
    return [left, top, right - left, bottom - top]


def _without_counts(region: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in region.items() if name != "counts"}


def _instances(record: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the regions of a record as instance annotations."""
    size = [record["image"]["height"], record["image"]["width"]]
    for region in record["regions"]:
        yield {**_without_counts(region), "segmentation": {"size": size, "counts": region["counts"]}}


def _panoptic_segments(record: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the regions of a record as panoptic segments, with their ids in the image."""
    for index, region in enumerate(record["regions"], 1):
        yield {"id": index, **_without_counts(region)}
