"""Pascal VOC's boxes."""

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar
from xml.etree.ElementTree import Element, SubElement, indent, tostring  # nosec B405 - nothing is parsed

from walkcut.bulk.formats.records import Records, file_name, image_link, image_record, json_bytes, label_name
from walkcut.bulk.items import EncodedItem, ItemPrediction
from walkcut.bulk.sources.uris import digest
from walkcut.labelstudio.predictions import Region
from walkcut.masks.bounds import bounding_box
from walkcut.storage import atomic_file

log = logging.getLogger(__name__)

_CONTROLS = r"[\0-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]"  # XML cannot hold them, or breaks lines
_UNFIT_ID = re.compile(rf"{_CONTROLS}|^\s|\s$")  # readers of the image set strip lines


@dataclass(frozen=True)
class VocFormat:
    """A data set in the layout of Pascal VOC: the box around each region of the default prediction.

    A `bndbox` is counted as in VOC's devkit: the upper left pixel is (1, 1), and the box includes `xmax` and `ymax`, so
    that the whole image is 1, 1, width, height. A region of several parts has one box. What walkcut does not know has
    VOC's neutral value: `pose` Unspecified, `truncated` and `difficult` 0. `depth` is 3, as images are read in colour.

    An image's id in `ImageSets/Main/trainval.txt` is its key, and its files are `Annotations/ID.xml` and
    `JPEGImages/ID.jpg`: readers look for no other suffix, and take other types by their content. Images that are files
    of this machine are linked there; `images.jsonl` lists the place of every image, under which others must be put.
    In labels, characters that XML cannot hold become `_`; a key with such characters, or with a space at its beginning
    or end, has a digest as id.
    """

    name: ClassVar[str] = "voc"

    def encode(self, image: ItemPrediction) -> EncodedItem:
        """Return the image's annotation, and a link to it if it is a file."""
        identity = image_id(image.item.key)
        annotation, file = f"Annotations/{identity}.xml", f"JPEGImages/{identity}.jpg"
        link = image_link(image, file)
        record = {**image_record(image, file), "annotation": annotation, "linked": bool(link)}
        return EncodedItem({annotation: _document(image, f"{identity}.jpg"), **link}, record)

    def assemble(self, records: Records, output_dir: Path) -> None:
        """Write `images.jsonl` and the list of all images, `ImageSets/Main/trainval.txt`, which is yours to split."""
        sets, missing = output_dir / "ImageSets" / "Main", 0
        sets.mkdir(parents=True, exist_ok=True)
        with atomic_file(output_dir / "images.jsonl") as write_line, atomic_file(sets / "trainval.txt") as write_id:
            for record in records:
                missing += not record["linked"]
                write_line(json_bytes(record) + b"\n")
                identity = record["annotation"].removeprefix("Annotations/").removesuffix(".xml")
                write_id(f"{identity}\n".encode())
        if missing:
            log.warning('%d images are not in JPEGImages/: put each there under its "file" in images.jsonl', missing)


def image_id(key: str) -> str:
    """Return the id of an image: its key, or a digest of it. Raises `SettingsError` as `file_name`.

    >>> image_id("cam1/f1"), image_id("two\\nlines")
    ('cam1/f1', 'a78ce975f6fde204')
    """
    return digest(key) if _UNFIT_ID.search(file_name(key, "")) else key


def _document(image: ItemPrediction, file: str) -> bytes:
    height, width = image.size
    root = Element("annotation")
    _add(root, {"folder": "JPEGImages", "filename": file})
    _add(SubElement(root, "size"), {"width": width, "height": height, "depth": 3})
    _add(root, {"segmented": 0})
    for region in image.predictions[-1].regions:
        _add_object(root, region)
    indent(root)
    return tostring(root, "utf-8") + b"\n"


def _add_object(root: Element, region: Region) -> None:
    element = SubElement(root, "object")
    name = re.sub(_CONTROLS, "_", label_name(region.label))
    _add(element, {"name": name, "pose": "Unspecified", "truncated": 0, "difficult": 0})
    rows, columns = bounding_box(region.mask)
    box = {"xmin": columns.start + 1, "ymin": rows.start + 1, "xmax": columns.stop, "ymax": rows.stop}
    _add(SubElement(element, "bndbox"), box)


def _add(parent: Element, texts: Mapping[str, str | int]) -> None:
    """Append an element with a text for each name."""
    for name, text in texts.items():
        SubElement(parent, name).text = str(text)
