"""Cached cut trees: all in files, the latest in memory too."""

import hashlib
import logging
import os
import threading
import time
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path

from cachetools import LRUCache

from walkcut.errors import TreeFileError, unusable_folder
from walkcut.hierarchy.cut_tree import CutTree
from walkcut.storage.files import PARTIAL_SUFFIX, atomic_file

log = logging.getLogger(__name__)

Crop = tuple[slice, slice]  # rows and columns

_SUFFIX = ".tree.npz"
_MAX_MEMORY = 64 << 20  # bytes: sixty trees of 640×480 or two of 12 megapixels, which take 1 and 21 ms to read


def image_digest(data: bytes) -> str:
    """Return the digest of an image file: 40 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()[:40]


def tree_key(image: str, segmenter_version: str, crop: Crop | None = None) -> str:
    """Return the key of the tree of an image (its digest), or of a crop of it, by this version of the segmenter.

    >>> tree_key("0123abcd", "v1", (slice(0, 20), slice(5, 30)))
    '0123abcd-0-20-5-30-v1'
    """
    sides = "" if crop is None else "".join(f"-{side.start}-{side.stop}" for side in crop)
    return f"{image}{sides}-{segmenter_version}"


def read_tree(folder: Path, key: str) -> CutTree | None:
    """Return the tree of a key from a cache's folder, or `None`. Raises `TreeFileError` for a damaged file."""
    try:
        return CutTree.from_bytes(_path(folder, key).read_bytes())
    except FileNotFoundError:
        return None


def write_tree(folder: Path, key: str, content: bytes) -> int:
    """Write the file of a tree into a cache's folder, and return its size in bytes for `TreeCache.register`."""
    with atomic_file(_path(folder, key)) as write:
        return write(content)


def _path(folder: Path, key: str) -> Path:
    return folder / f"{key}{_SUFFIX}"


class TreeCache:
    """Cached cut trees by key, least recently used evicted; safe to share between threads.

    The folder holds `quota` bytes of files; memory holds `max_memory` bytes of trees, or one larger tree. The folder is
    listed once, here. Raises `SettingsError` if it cannot be made or read.
    """

    def __init__(self, folder: Path, quota: int, *, max_memory: int = _MAX_MEMORY) -> None:
        self._folder, self._quota = folder, quota
        self._lock = threading.RLock()
        # A tree larger than the memory counts as all of it, so that the latest tree always stays.
        self._trees = LRUCache[str, CutTree](max_memory, lambda tree: min(tree.nbytes, max_memory))
        self._sizes = _list(folder)  # of the files, least recently used first
        self._total = sum(self._sizes.values())

    def get(self, key: str) -> CutTree | None:
        """Return the tree of a key, from memory or its file, or `None`; a damaged file is deleted."""
        if (tree := self.get_from_memory(key)) is not None:
            return tree
        try:
            tree = read_tree(self._folder, key)
        except TreeFileError as error:
            log.warning("deleted %s: %s", _path(self._folder, key), error)
            with self._lock:
                self._delete(key)
        if tree is not None:
            self.touch(key, tree)
        return tree

    def get_from_memory(self, key: str) -> CutTree | None:
        """Return the tree of a key from memory, or `None`."""
        with self._lock:
            tree = self._trees.get(key)
        if tree is not None:
            self.touch(key, tree)
        return tree

    def put(self, key: str, tree: CutTree, content: bytes) -> None:
        """Save a tree in memory, and its content as a file. A full disk is logged, not raised."""
        try:
            with self._lock:
                self.register(key, write_tree(self._folder, key, content))
        except OSError as error:
            log.warning("the cut tree %s was not saved: %s", key, error)
        self.touch(key, tree)

    def register(self, key: str, size: int) -> None:
        """Count a file of `size` bytes in the folder, and evict others to make room."""
        with self._lock:
            self._set_size(key, size)
            while self._total > self._quota:
                self._delete(next(iter(self._sizes)))

    def touch(self, key: str, tree: CutTree) -> None:
        """Mark a tree as the most recently used, in memory, among the files, and for the next start."""
        with self._lock:
            self._trees[key] = tree
            if key in self._sizes:
                self._sizes.move_to_end(key)
        now = time.time_ns()  # finer than the file system's own clock
        with suppress(OSError):  # evicted in the meantime, or never saved
            os.utime(_path(self._folder, key), ns=(now, now))

    def _delete(self, key: str) -> None:
        self._set_size(key, 0)
        _path(self._folder, key).unlink(missing_ok=True)

    def _set_size(self, key: str, size: int) -> None:
        """Note the size of a file in bytes, 0 for a deleted one."""
        self._total += size - self._sizes.pop(key, 0)
        if size:
            self._sizes[key] = size


def _list(folder: Path) -> OrderedDict[str, int]:
    """Return the size in bytes of each tree's file, least recently used first; delete half-written files.

    Make the folder if it is missing. Raises `SettingsError`.
    """
    files = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for partial in folder.glob(f"*{PARTIAL_SUFFIX}"):
            partial.unlink(missing_ok=True)
        for path in folder.glob(f"*{_SUFFIX}"):
            with suppress(FileNotFoundError):  # evicted by another process
                files.append((path.stat(), path.name.removesuffix(_SUFFIX)))
    except OSError as error:
        raise unusable_folder(folder, str(error.strerror)) from error
    files.sort(key=lambda file: file[0].st_mtime_ns)
    return OrderedDict((key, status.st_size) for status, key in files)
