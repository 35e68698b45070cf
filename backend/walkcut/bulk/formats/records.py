"""Parts that formats share: names of files, records of images, label maps, classes, JSON."""

import json
import os
from collections.abc import Iterable, Mapping
from itertools import count, groupby
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt16

from walkcut.bulk.items import ItemPrediction
from walkcut.errors import SettingsError
from walkcut.labelstudio.annotations import region_numbers
from walkcut.labelstudio.config import UNLABELLED, ImageTag
from walkcut.storage import atomic_file

Records = Iterable[Mapping[str, Any]]

_MAX_REGIONS = np.iinfo(np.uint16).max


def file_name(key: str, suffix: str) -> str:
    """Return the file name of a key. Raises `SettingsError` for a key that leads out of the format's folder.

    >>> file_name("a/b", ".png")
    'a/b.png'
    """
    *folders, last = key.split("/")
    if not last or "\0" in key or {"", ".", ".."} & {*folders, last + suffix}:
        raise SettingsError(f"the key {key!r} is not a file name: use names without .., and single / between them")
    return key + suffix


def image_record(image: ItemPrediction, file: str = "") -> dict[str, Any]:
    """Return an image's key, its name, its reference unless it is in itself the image, size and model version.

    `file` is that of the output, if there is one, and the model version that of the default prediction.
    """
    height, width = image.size
    item = image.item
    reference = {} if item.reference[:5].lower() == "data:" else {"reference": item.reference}
    names = {"key": item.key, "image": item.name or item.key, **reference} | ({"file": file} if file else {})
    return {**names, "width": width, "height": height, "model_version": image.predictions[-1].model_version}


def image_link(image: ItemPrediction, name: str) -> dict[str, Path]:
    """Return a link to the image under a name, if it is a file of this machine, else none."""
    reference = image.item.reference
    return {name: Path(reference)} if os.path.isabs(reference) and os.path.isfile(reference) else {}


def label_map(image: ItemPrediction) -> UInt16[np.ndarray, "y x"]:
    """Return the default prediction's regions, numbered from 1 in their order; 0 is in none.

    Raises `SettingsError` for more regions than 16 bits can count.
    """
    regions = image.predictions[-1].regions
    if len(regions) > _MAX_REGIONS:
        raise SettingsError(
            f"{image.item.key} has {len(regions)} regions, more than {_MAX_REGIONS}: choose a coarser granularity"
        )
    return region_numbers(regions, image.size)


def label_name(label: str) -> str:
    """Return the name of a label in files: `unlabelled` for the empty one."""
    return label or "unlabelled"


def class_number(label: str, classes: Mapping[str, int]) -> int:
    """Return the number of a label's class. Raises `SettingsError` if it is missing."""
    name = label_name(label)
    if name not in classes:
        raise SettingsError(
            f"the label {name!r} is not in the labelling config, which has {', '.join(classes)}: add it"
        )
    return classes[name]


def class_numbers(image_tag: ImageTag, first: int) -> dict[str, int]:
    """Return the numbers of an image's classes: Label Studio's where labels have a `category`, else from `first`.

    Regions without a label, if the image may have them, have the next free number. Raises `SettingsError` for labels
    with the same `category`.
    """
    labels = dict.fromkeys(image_tag.labels or image_tag.neutral_labels)
    if not image_tag.neutral_labels:
        labels.setdefault(label_name(UNLABELLED))
    numbers = {label: image_tag.categories[label] for label in labels if label in image_tag.categories}
    for number, group in groupby(sorted(numbers, key=numbers.__getitem__), key=numbers.__getitem__):
        same = list(group)
        if len(same) > 1:
            raise SettingsError(
                f"the labels {' and '.join(map(repr, same))} have the same category {number} in the labelling config: "
                "give each a number of its own"
            )
    taken = set(image_tag.categories.values())
    free = (number for number in count(0 if taken else first) if number not in taken)
    return {label: numbers[label] if label in numbers else next(free) for label in labels}


def json_bytes(document: Any) -> bytes:
    """Return a document on one line, in ASCII."""
    return json.dumps(document, separators=(",", ":")).encode()


def write_lines(documents: Iterable[Any], path: Path) -> None:
    """Write JSON Lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as write:
        for document in documents:
            write(json_bytes(document) + b"\n")
