"""Files of JSON lines, one for each key: appended, mended and sorted, however many there are."""

import hashlib
import heapq
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from jaxtyping import UInt64

_BEGIN = b'{"key": "'
_RECENT = 65536
_SORTED_AT_ONCE = 64 << 20  # bytes of lines that are sorted in memory
_BLOCK = 1 << 16


class HashSet64:
    """A set of texts, of which 8 bytes each are remembered.

    Ten million take 80 MB, and the chance that any two of them are taken for one is 3 in a million.
    """

    def __init__(self) -> None:
        self._sorted: UInt64[np.ndarray, " n"] = np.empty(0, np.uint64)
        self._recent: set[int] = set()

    def __len__(self) -> int:
        return len(self._sorted) + len(self._recent)

    def __contains__(self, text: str) -> bool:
        number = _digest(text)
        place = int(np.searchsorted(self._sorted, np.uint64(number)))
        return number in self._recent or (place < len(self._sorted) and int(self._sorted[place]) == number)

    def add(self, text: str) -> bool:
        """Take in a text; false where it was there already."""
        if text in self:
            return False
        self._recent.add(_digest(text))
        if len(self._recent) >= _RECENT:
            recent = np.sort(np.fromiter(self._recent, np.uint64, len(self._recent)))
            self._sorted = np.insert(self._sorted, np.searchsorted(self._sorted, recent), recent)
            self._recent.clear()
        return True


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def append_line(file: IO[bytes], line: Mapping[str, Any]) -> None:
    """Write a line so that it is with the system, though this process be killed."""
    file.write(json.dumps(line).encode() + b"\n")
    file.flush()


def truncate_partial_line(path: Path) -> Path:
    """A file of lines, without the last one where that was cut off."""
    with path.open("a+b") as file:
        end = file.seek(0, 2)
        while end:
            begin = max(0, end - _BLOCK)
            file.seek(begin)
            place = file.read(end - begin).rfind(b"\n")
            if place >= 0:
                end = begin + place + 1
                break
            end = begin
        file.truncate(end)
    return path


def _key(line: bytes) -> bytes:
    """The key that a line begins with: none has quotation marks or anything that JSON writes in another way."""
    return line[len(_BEGIN) : line.index(b'"', len(_BEGIN))]


def keys(path: Path) -> Iterator[str]:
    """The keys of a file's lines."""
    with path.open("rb") as lines:
        for line in lines:
            yield _key(line).decode()


@contextmanager
def temporary_dir(folder: Path) -> Iterator[Path]:
    """A folder for a while, without what a killed process left in it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def external_sort(path: Path, folder: Path) -> Iterator[bytes]:
    """The lines of a file in the order of their keys: sorted part by part in an empty folder, and the parts merged."""
    parts: list[Path] = []
    with path.open("rb") as lines:
        while part := lines.readlines(_SORTED_AT_ONCE):
            parts.append(folder / str(len(parts)))
            part.sort(key=_key)
            with parts[-1].open("wb") as file:
                file.writelines(part)
    with ExitStack() as stack:
        yield from heapq.merge(*(stack.enter_context(part.open("rb")) for part in parts), key=_key)
