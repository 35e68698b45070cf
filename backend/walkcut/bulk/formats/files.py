"""Names and contents of the files that formats write."""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import IO, Any

from walkcut.bulk.items import Item
from walkcut.errors import SettingsError
from walkcut.storage import atomic_file

_BLOCK_BYTES = 1 << 20


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


def json_bytes(document: Any) -> bytes:
    """Return a document on one line, in ASCII."""
    return json.dumps(document, separators=(",", ":")).encode()


def write_lines(documents: Iterable[Any], path: Path) -> None:
    """Write JSON Lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as write:
        for document in documents:
            write(json_bytes(document) + b"\n")


class ArrayFile:
    """A JSON array whose elements are held in an open temporary file until its document is written."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def add(self, element: Any) -> None:
        """Append an element."""
        self._file.write((b",\n" if self._file.tell() else b"\n") + json_bytes(element))

    def copy(self, write: Callable[[bytes], int]) -> None:
        """Write the array."""
        self._file.seek(0)
        write(b"[")
        while block := self._file.read(_BLOCK_BYTES):
            write(block)
        write(b"]")


def write_object(members: Mapping[str, Any], path: Path) -> None:
    """Write a JSON object, some of whose values may be an `ArrayFile`."""
    with atomic_file(path) as write:
        for index, (name, value) in enumerate(members.items()):
            write((b",\n" if index else b"{\n") + json_bytes(name) + b": ")
            if isinstance(value, ArrayFile):
                value.copy(write)
            else:
                write(json_bytes(value))
        write(b"\n}\n")
