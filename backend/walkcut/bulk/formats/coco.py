"""COCO's instance and panoptic annotations."""

import logging
import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, ClassVar

import numpy as np
from jaxtyping import Bool, UInt16
from scipy.ndimage import find_objects

from walkcut.bulk.formats import rle
from walkcut.bulk.formats.records import Records, class_number, file_name, image_record, json_bytes, label_map
from walkcut.bulk.items import EncodedItem, ItemPrediction
from walkcut.images.encode import encode_png
from walkcut.labelstudio.predictions import Region
from walkcut.masks.keyhole import keyhole
from walkcut.masks.polygons import DEFAULT_TOLERANCE, polygons
from walkcut.storage import atomic_file

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CocoFormat:
    """The default prediction as instances, `annotations.json`, and as `panoptic.json` with images of ids.

    Categories have the ids of `classes`, images ids from 1 in the order of their keys. Each annotation has the region's
    `score` as an extra field. A `file_name` is relative to the image's source, and the panoptic image has the same name
    with its own suffix, unless another image has it; `images.jsonl` lists names and references.
    """

    name: ClassVar[str] = "coco"
    classes: Mapping[str, int]

    def encode(self, image: ItemPrediction) -> EncodedItem:
        """Return panoptic/KEY.png, with ids of regions as R + 256·G and 0 for none, and a record of the regions.

        Raises `SettingsError` for a label not in `classes`.
        """
        labels = label_map(image)
        file = file_name(image.item.key, ".png")
        ids = np.stack([labels & 255, labels >> 8, np.zeros_like(labels)], -1).astype(np.uint8)
        pairs = zip(image.predictions[-1].regions, self._segmentations(image, labels), strict=True)
        regions = [{**self._encode_region(region), "segmentation": segmentation} for region, segmentation in pairs]
        record = {**image_record(image, f"panoptic/{file}"), "regions": regions}
        return EncodedItem({f"panoptic/{file}": encode_png(ids)}, record)

    def _segmentations(self, image: ItemPrediction, labels: UInt16[np.ndarray, "y x"]) -> list[Any]:  # noqa: ARG002
        """Return COCO's `segmentation` of each region: run lengths."""
        masks = (region.mask for region in image.predictions[-1].regions)
        return [{"size": list(image.size), "counts": rle.encode(mask)} for mask in masks]

    def _encode_region(self, region: Region) -> dict[str, Any]:
        return {
            "category_id": class_number(region.label, self.classes),
            "area": int(np.count_nonzero(region.mask)),
            "bbox": bounding_box(region.mask),
            "iscrowd": 0,
            "score": region.score,
        }

    def assemble(self, records: Records, output_dir: Path) -> None:
        """Write `annotations.json`, `panoptic.json` and `images.jsonl`; arrays are collected in unnamed files."""
        output_dir.mkdir(parents=True, exist_ok=True)
        with ExitStack() as files:
            images, instances, panoptic = (files.enter_context(TemporaryFile(dir=output_dir)) for _ in range(3))
            write_line = files.enter_context(atomic_file(output_dir / "images.jsonl"))
            instance_ids, renamed = count(1), 0
            for image_id, record in enumerate(records, 1):
                size = {name: record[name] for name in ("width", "height")}
                segments = []
                for index, region in enumerate(record["regions"], 1):
                    ids = {"id": next(instance_ids), "image_id": image_id}
                    _append(instances, {**ids, **region})
                    segments.append({"id": index, **{name: region[name] for name in region if name != "segmentation"}})
                _append(images, {"id": image_id, "file_name": record["image"], **size})
                file = record["file"].removeprefix("panoptic/")
                _append(panoptic, {"image_id": image_id, "file_name": file, "segments_info": segments})
                renamed += is_renamed(record)
                line = {name: value for name, value in record.items() if name != "regions"}
                write_line(json_bytes({"id": image_id, **line}) + b"\n")
            if renamed:
                log.warning(
                    "%d images have a new file_name, as theirs is taken by an image of another source: images.jsonl "
                    "lists them; --path-root with a folder above all sources keeps the names",
                    renamed,
                )
            self._write(output_dir / "annotations.json", images, instances)
            self._write(output_dir / "panoptic.json", images, panoptic)

    def _write(self, path: Path, images: IO[bytes], annotations: IO[bytes]) -> None:
        categories = [
            {"id": number, "name": name, "supercategory": "", "isthing": 1} for name, number in self.classes.items()
        ]
        with atomic_file(path) as write:
            write(b'{\n"info": {"description":"walkcut"},\n"licenses": [],\n"categories": ' + json_bytes(categories))
            for name, elements in ((b"images", images), (b"annotations", annotations)):
                write(b',\n"%s": [' % name)
                elements.seek(0)
                for line in elements:
                    write(line)
                write(b"]")
            write(b"\n}\n")


@dataclass(frozen=True)
class CocoPolygonFormat(CocoFormat):
    """As `CocoFormat`, but the instances in `annotations.json` are polygons, for tools that read no run lengths.

    A region has a list of polygons [x1, y1, x2, y2, …], one for each connected part, in corners of pixels: (0, 0) is
    the image's upper left corner. A slit leads to each hole, as `keyhole` cuts it; for the `tolerance` in pixels see
    `polygons`. `area` and `bbox` are those of the region's pixels, as in `panoptic.json`.
    """

    name: ClassVar[str] = "coco-polygon"
    tolerance: float = DEFAULT_TOLERANCE

    def _segmentations(self, image: ItemPrediction, labels: UInt16[np.ndarray, "y x"]) -> list[Any]:
        """Return COCO's `segmentation` of each region: polygons."""
        segmentations: list[list[list[float]]] = [[] for _ in image.predictions[-1].regions]
        for polygon in polygons(labels, self.tolerance):
            segmentations[polygon.region - 1].append(keyhole(polygon.rings).ravel().tolist())
        return segmentations


def is_renamed(record: Mapping[str, Any]) -> bool:
    """Return whether a file of this machine is named otherwise in a record, as another image had its name."""
    reference = record.get("reference", "")
    return os.path.isabs(reference) and os.path.exists(reference) and not reference.endswith(f"/{record['image']}")


def _append(elements: IO[bytes], element: Any) -> None:
    elements.write((b",\n" if elements.tell() else b"\n") + json_bytes(element))


def bounding_box(mask: Bool[np.ndarray, "y x"]) -> list[int]:
    """Return COCO's [x, y, width, height] of a mask; zeros for an empty one.

    >>> bounding_box(np.array([[False, False, False], [False, True, True]]))
    [1, 1, 2, 1]
    """
    boxes = find_objects(mask.astype(np.uint8))
    if not boxes:
        return [0, 0, 0, 0]
    rows, columns = boxes[0]
    return [columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start]
