"""Parts that formats share: names of files, records of images, label maps, classes, JSON."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import UInt16

from walkcut.bulk.items import Item, ItemPrediction
from walkcut.errors import SettingsError
from walkcut.labelstudio.annotations import region_numbers
from walkcut.storage import atomic_file

Records = Iterable[Mapping[str, Any]]

_MAX_REGIONS = np.iinfo(np.uint16).max


def file_name(key: str, suffix: str) -> str:
    """Return the file name of a key. Raises `SettingsError` for a key that leads out of the format's folder.

    >>> file_name("a/b", ".png")
    'a/b.png'
    """
    unsafe = any(part in {"", ".", ".."} for part in key.split("/"))
    if unsafe or "\\" in key or "\0" in key or PurePosixPath(key).is_absolute():
        raise SettingsError(f"the key {key!r} is not a file name: use letters, digits, . _ - and single / between them")
    return key + suffix


def image_name(item: Item) -> str:
    """Return an image's reference, or its key if the reference is a data URL."""
    return item.key if item.reference.startswith("data:") else item.reference


def image_record(image: ItemPrediction, file: str = "") -> dict[str, Any]:
    """Return an image's name, `file` if there is one, size and the model version of its default prediction."""
    height, width = image.size
    names = {"key": image.item.key, "image": image_name(image.item)} | ({"file": file} if file else {})
    return {**names, "width": width, "height": height, "model_version": image.predictions[-1].model_version}


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


def class_index(label: str, names: Sequence[str]) -> int:
    """Return the index of a label among the classes' names. Raises `SettingsError` if it is missing."""
    name = label_name(label)
    if name not in names:
        raise SettingsError(f"the label {name!r} is not in the labelling config, which has {', '.join(names)}: add it")
    return names.index(name)


def json_bytes(document: Any) -> bytes:
    """Return a document on one line, in ASCII."""
    return json.dumps(document, separators=(",", ":")).encode()


def write_lines(documents: Iterable[Any], path: Path) -> None:
    """Write JSON Lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as write:
        for document in documents:
            write(json_bytes(document) + b"\n")
