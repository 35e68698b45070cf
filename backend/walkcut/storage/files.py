"""Files that appear under their name only when they are complete, and folders of them that several processes share."""

import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

_PARTIAL_SUFFIX = ".part"
_ABANDONED_S = 3600.0  # no file is written for so long: the process that began it was killed


class FileInfo(NamedTuple):
    """When a file was last used or written, its size in bytes, and its name; sorts by age."""

    used_ns: int
    size: int
    name: str


@contextmanager
def atomic_file(path: Path) -> Iterator[Callable[[bytes], int]]:
    """Yield a function that writes bytes; the file appears when the block ends, and not at all if it fails."""
    partial = path.with_name(f".{secrets.token_hex(8)}{_PARTIAL_SUFFIX}")
    try:
        with partial.open("xb") as file:
            yield file.write
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def list_files(folder: Path, suffix: str) -> list[FileInfo]:
    """Return the files with a suffix, least recently used first; delete half-written files of killed processes.

    Other processes may write and delete files meanwhile.
    """
    files, abandoned_before = [], time.time() - _ABANDONED_S
    with os.scandir(folder) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):  # deleted by another process
                if entry.name.endswith(suffix):
                    status = entry.stat()
                    files.append(FileInfo(status.st_mtime_ns, status.st_size, entry.name))
                elif entry.name.endswith(_PARTIAL_SUFFIX) and entry.stat().st_mtime < abandoned_before:
                    os.unlink(entry)
    return sorted(files)
