"""Names and contents of the files that formats write."""

import io
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np
from jaxtyping import UInt8, UInt16
from PIL import Image

from walkcut.bulk.items import Item
from walkcut.errors import SettingsError
from walkcut.storage import atomic_file


def file_name(key: str, suffix: str) -> str:
    """The file of a key, below a format's folder. Raises `SettingsError` for a key that leads out of it."""
    unsafe = any(part in {"", ".", ".."} for part in key.split("/"))
    if unsafe or "\\" in key or "\0" in key or PurePosixPath(key).is_absolute():
        raise SettingsError(f"the key {key!r} is no file name: use letters, digits, . _ - and single / between them")
    return key + suffix


def image_name(item: Item) -> str:
    """Where an image is, or its key where the reference holds the image itself."""
    return item.key if item.reference.startswith("data:") else item.reference


def to_png(image: UInt16[np.ndarray, "y x"] | UInt8[np.ndarray, "y x 3"]) -> bytes:
    """The same values as a PNG file: 16 bits grey, or RGB."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def to_json(document: Any) -> bytes:
    """A document on one line, in ASCII."""
    return json.dumps(document, separators=(",", ":")).encode()


def write_lines(documents: Iterable[Any], path: Path) -> None:
    """Write JSON Lines, one document a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as write:
        for document in documents:
            write(to_json(document) + b"\n")


class Rows:
    """The rows of a JSON array, in an open file for as long as the document that is to hold them is not written."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def add(self, row: Any) -> None:
        """One more row at the end."""
        self._file.write((b",\n" if self._file.tell() else b"\n") + to_json(row))

    def copy(self, write: Callable[[bytes], int]) -> None:
        """Write the array."""
        self._file.seek(0)
        write(b"[")
        while block := self._file.read(1 << 20):
            write(block)
        write(b"]")


def write_object(members: Mapping[str, Any], path: Path) -> None:
    """Write a JSON object, its `Rows` as arrays."""
    with atomic_file(path) as write:
        for number, (name, value) in enumerate(members.items()):
            write((b",\n" if number else b"{\n") + to_json(name) + b": ")
            if isinstance(value, Rows):
                value.copy(write)
            else:
                write(to_json(value))
        write(b"\n}\n")
