"""YOLO's segmentation labels."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from walkcut.bulk.formats.records import (
    Records,
    class_number,
    file_name,
    image_link,
    image_record,
    json_bytes,
    label_map,
)
from walkcut.bulk.items import EncodedItem, ItemPrediction
from walkcut.bulk.names import split_suffix
from walkcut.errors import SettingsError
from walkcut.masks.keyhole import keyhole
from walkcut.masks.polygons import DEFAULT_TOLERANCE, polygons
from walkcut.storage import atomic_file

log = logging.getLogger(__name__)


# ultralytics lists files with these suffixes only, and reads them by their content.
_LISTED_SUFFIXES = {".avif", ".bmp", ".dng", ".heic", ".jp2", ".jpeg", ".jpg", ".mpo", ".png", ".tif", ".tiff", ".webp"}
_MAX_CLASS = 9999


@dataclass(frozen=True)
class YoloFormat:
    """A data set for training with ultralytics: images, and a line `class x1 y1 x2 y2 …` for each part of a region.

    A part is connected. Coordinates are corners of pixels, as fractions of the image's width and height. A slit leads
    to each hole, as `keyhole` cuts it. For the `tolerance` in pixels see `polygons`; a reader that draws outlines too,
    as ultralytics does, makes regions up to a pixel larger.

    Images that are files of this machine are linked into the folder `images`, with their folders. `images.jsonl` lists
    the place of every image, under which others must be put. Raises `SettingsError` for class numbers that are negative
    or above 9999.
    """

    name: ClassVar[str] = "yolo"
    classes: Mapping[str, int]
    tolerance: float = DEFAULT_TOLERANCE

    def __post_init__(self) -> None:
        for name, number in self.classes.items():
            if not 0 <= number <= _MAX_CLASS:
                raise SettingsError(
                    f"YOLO has class numbers from 0 to {_MAX_CLASS}, but the label {name!r} has the category {number}: "
                    "change it in the labelling config, or use another format"
                )

    def encode(self, image: ItemPrediction) -> EncodedItem:
        """Return the image's labels, empty if there are no regions, and a link to it if it is a file.

        Raises `SettingsError` for a label not in `classes`, and as `label_file`.
        """
        numbers = [class_number(region.label, self.classes) for region in image.predictions[-1].regions]
        lines = []
        for polygon in polygons(label_map(image), self.tolerance):
            points = keyhole(polygon.rings) / np.array(image.size[::-1])
            coordinates = [f"{value:.6f}" for value in points.ravel().tolist()]
            lines.append(f"{numbers[polygon.region - 1]} {' '.join(coordinates)}\n")
        suffix = split_suffix(image.item.name)[1]
        key = file_name(image.item.key, suffix if suffix.lower() in _LISTED_SUFFIXES else ".jpg")
        labels, link = label_file(f"images/{key}"), image_link(image, f"images/{key}")
        record = {**image_record(image, f"images/{key}"), "labels": labels, "linked": bool(link)}
        return EncodedItem({labels: "".join(lines).encode(), **link}, record)

    def assemble(self, records: Records, output_dir: Path) -> None:
        """Write `images.jsonl` and `data.yaml`.

        All images are for training and, until you split them, for validation.
        """
        output_dir.mkdir(parents=True, exist_ok=True)
        missing, hidden = 0, 0
        with atomic_file(output_dir / "images.jsonl") as write:
            for record in records:
                missing += not record["linked"]
                hidden += "/." in record["file"]
                write(json_bytes(record) + b"\n")
        names = {number: name for name, number in self.classes.items()}
        # ultralytics needs a name for each number up to the last.
        quoted = [json.dumps(names.get(n, f"unused {n}"), ensure_ascii=False) for n in range(max(names) + 1)]
        lines = ["train: images", "val: images", "names:", *(f"  {n}: {name}" for n, name in enumerate(quoted))]
        notes = {
            f'{missing} images are not in images/: put each there under its "file" in images.jsonl': missing,
            f"{hidden} images have a name or folder with a dot in front, which ultralytics leaves out: rename": hidden,
        }
        for note in filter(notes.get, notes):
            log.warning(note)
            lines.insert(0, f"# {note}")
        with atomic_file(output_dir / "data.yaml") as write:
            write("".join(f"{line}\n" for line in lines).encode())


def label_file(image_file: str) -> str:
    """Return the file of an image's labels, as ultralytics derives it (`img2label_paths`).

    Raises `SettingsError` for an image in folders named `images` and `labels`, as its labels could be another's.

    >>> label_file("images/cam1/f1.png"), label_file("images/set/images/f1.png")
    ('labels/cam1/f1.txt', 'images/set/labels/f1.txt')
    """
    if {"images", "labels"} <= set(image_file.split("/")[1:-1]):
        raise SettingsError(f"{image_file} is in folders named images and labels, which YOLO confuses: rename one")
    return "/labels/".join(f"/{image_file}".rsplit("/images/", 1)).removeprefix("/").rpartition(".")[0] + ".txt"
