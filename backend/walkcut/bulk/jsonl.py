"""Files of JSON lines that begin with a key: append, repair and sort, with bounded memory."""

import hashlib
import heapq
import json
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from jaxtyping import UInt64

_KEY = re.compile(rb'\{"key": ("(?:[^"\\]|\\.)*")')
_STAMP = re.compile(_KEY.pattern + rb', "stamp": "([^"]*)"')
_MAX_RECENT = 65536
_SORT_BYTES = 64 << 20  # of lines that are sorted in memory


class HashSet64:
    """Set of texts that stores 8 bytes for each.

    Ten million texts take 80 MB; the probability that any two of them collide is 3 in a million.

    >>> texts = HashSet64(["a"])
    >>> "a" in texts, "b" in texts, texts.add("b"), texts.add("b"), len(texts)
    (True, False, True, False, 2)
    """

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._sorted: UInt64[np.ndarray, " n"] = np.empty(0, np.uint64)
        self._recent: set[int] = set()
        for text in texts:
            self.add(text)

    def __len__(self) -> int:
        return len(self._sorted) + len(self._recent)

    def __contains__(self, text: str) -> bool:
        digest = _digest(text)
        index = int(np.searchsorted(self._sorted, np.uint64(digest)))
        return digest in self._recent or (index < len(self._sorted) and int(self._sorted[index]) == digest)

    def add(self, text: str) -> bool:
        """Add a text; return whether it is new."""
        if text in self:
            return False
        self._recent.add(_digest(text))
        if len(self._recent) >= _MAX_RECENT:
            recent = np.sort(np.fromiter(self._recent, np.uint64, len(self._recent)))
            self._sorted = np.insert(self._sorted, np.searchsorted(self._sorted, recent), recent)
            self._recent.clear()
        return True


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def append_line(file: IO[bytes], line: Mapping[str, Any]) -> None:
    """Write a line and flush it, so that it survives the end of this process."""
    file.write(json.dumps(line).encode() + b"\n")
    file.flush()


def truncate_partial_line(path: Path) -> Path:
    """Cut off a last line without a line feed; an absent file is created. Returns the path."""
    with path.open("a+b") as file:
        file.seek(0)
        file.truncate(sum(len(line) for line in file if line.endswith(b"\n")))
    return path


def _key(line: bytes) -> bytes:
    """Return the key at the beginning of a line, as JSON writes it."""
    match = _KEY.match(line)
    if match is None:
        raise ValueError(f"a line of the run's state has no key: {line[:80]!r}")
    return match[1]


def line_key(line: bytes) -> str:
    """Return the key of a line."""
    return str(json.loads(_key(line)))


def keys(path: Path) -> Iterator[str]:
    """Yield the keys of a file's lines."""
    with path.open("rb") as lines:
        for line in lines:
            yield line_key(line)


class Stamps:
    """Keys of a file's lines, and the stamp of each, which follows the key; 16 bytes for each line."""

    def __init__(self, path: Path) -> None:
        self.keys, self._stamps = HashSet64(), HashSet64()
        with path.open("rb") as lines:
            for line in lines:
                stamp = _STAMP.match(line)
                self.add(line_key(line), stamp[2].decode() if stamp else "")

    def add(self, key: str, stamp: str) -> None:
        """Add a key with its stamp."""
        self.keys.add(key)
        self._stamps.add(f"{stamp} {key}")

    def has_changed(self, key: str, stamp: str) -> bool:
        """Return whether a key has another stamp now, where both stamps are known, that is not empty."""
        is_known = f"{stamp} {key}" in self._stamps or f" {key}" in self._stamps
        return bool(stamp) and key in self.keys and not is_known


@contextmanager
def temporary_dir(path: Path) -> Iterator[Path]:
    """Make an empty folder that is deleted at the end, with the leftovers of a killed process."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def external_sort(path: Path, empty_dir: Path) -> Iterator[bytes]:
    """Yield a file's lines in the order of their keys: sorted blocks in an empty folder, merged."""
    blocks: list[Path] = []
    with path.open("rb") as lines:
        while block := lines.readlines(_SORT_BYTES):
            blocks.append(empty_dir / str(len(blocks)))
            block.sort(key=_key)
            with blocks[-1].open("wb") as file:
                file.writelines(block)
    with ExitStack() as stack:
        yield from heapq.merge(*(stack.enter_context(block.open("rb")) for block in blocks), key=_key)
