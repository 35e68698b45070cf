"""Cached cut trees: all in files, the latest in memory too."""

import hashlib
import logging
import os
import time
from contextlib import suppress
from pathlib import Path
from threading import Lock

from cachetools import LRUCache

from walkcut.errors import TreeFileError, unusable_folder
from walkcut.hierarchy.cut_tree import CutTree
from walkcut.storage.files import atomic_file, list_files

log = logging.getLogger(__name__)

Crop = tuple[slice, slice]  # rows and columns

_SUFFIX = ".tree.npz"
_STEPS = 32  # listings of the folder while its quota is written once
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
    """Write the file of a tree into a cache's folder, which is made if it was removed, and return its size in bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_file(_path(folder, key)) as write:
        return write(content)


def _path(folder: Path, key: str) -> Path:
    return folder / f"{key}{_SUFFIX}"


class TreeCache:
    """Cached cut trees by key, least recently used evicted; safe to share between threads.

    Several processes may share a folder. It holds `quota` bytes of files, and up to a 32nd more for each further
    process that writes there; memory holds `max_memory` bytes of trees, or one larger tree. Raises `SettingsError` if
    the folder cannot be made or read.
    """

    def __init__(self, folder: Path, quota: int, *, max_memory: int = _MAX_MEMORY) -> None:
        self._folder, self._quota, self._step = folder, quota, quota // _STEPS
        self._memory_lock, self._quota_lock = Lock(), Lock()  # the disk is never waited for under the first
        # A tree larger than the memory counts as all of it, so that the latest tree always stays.
        self._trees = LRUCache[str, CutTree](max_memory, lambda tree: min(tree.nbytes, max_memory))
        self._unlisted = self._step  # bytes written since the folder was listed: the first file leads to a listing
        try:
            folder.mkdir(parents=True, exist_ok=True)
            os.scandir(folder).close()
        except OSError as error:
            raise unusable_folder(folder, str(error.strerror)) from error

    def get(self, key: str) -> CutTree | None:
        """Return the tree of a key, from memory or its file, or `None`; a damaged file is deleted."""
        if (tree := self.get_from_memory(key)) is not None:
            return tree
        try:
            tree = read_tree(self._folder, key)
        except TreeFileError as error:
            log.warning("deleted %s: %s", _path(self._folder, key), error)
            with suppress(OSError):
                _path(self._folder, key).unlink()
        except OSError as error:
            log.warning("the cut tree %s cannot be read: %s", key, error)
        if tree is not None:
            self.touch(key, tree)
        return tree

    def get_from_memory(self, key: str) -> CutTree | None:
        """Return the tree of a key from memory, or `None`."""
        with self._memory_lock:
            tree = self._trees.get(key)
        if tree is not None:
            self.touch(key, tree)
        return tree

    def put(self, key: str, tree: CutTree, content: bytes) -> None:
        """Save a tree in memory, and its content as a file. A full disk is logged, not raised."""
        try:
            size = write_tree(self._folder, key, content)
        except OSError as error:
            log.warning("the cut tree %s was not saved: %s", key, error)
            size = 0
        self.touch(key, tree)
        self.register(size)

    def register(self, size: int) -> None:
        """Count `size` bytes that were written into the folder, and evict trees to make room.

        The folder is listed after each 32nd of the quota, and then emptied so far that another 32nd fits. The list of
        one process would miss what others write, use and delete.
        """
        with self._quota_lock:
            self._unlisted += size
            if self._unlisted > self._step:
                try:
                    self._evict()
                    self._unlisted = 0
                except OSError as error:
                    log.warning("the cut trees in %s may exceed their quota: %s", self._folder, error)

    def touch(self, key: str, tree: CutTree) -> None:
        """Mark a tree as the most recently used, in memory and, for all processes, in the folder."""
        with self._memory_lock:
            self._trees[key] = tree
        now = time.time_ns()  # finer than the file system's own clock
        with suppress(OSError):  # evicted in the meantime, or never saved
            os.utime(_path(self._folder, key), ns=(now, now))

    def _evict(self) -> None:
        files = list_files(self._folder, _SUFFIX)
        excess = sum(file.size for file in files) - (self._quota - self._step)
        for file in files:
            if excess <= 0:
                break
            (self._folder / file.name).unlink(missing_ok=True)
            excess -= file.size
