"""Cut trees of images already seen: the last ones in memory, the others in files."""

import hashlib
import logging
import os
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from walkcut.errors import TreeFileError, unusable_folder
from walkcut.hierarchy.cut_tree import CutTree

log = logging.getLogger(__name__)

Crop = tuple[slice, slice]  # rows and columns

_SUFFIX = ".tree.npz"
_PART = ".part"
_IN_MEMORY = 64 << 20  # bytes: sixty trees of 640x480 or more, two of 12 megapixels, which take 1 and 21 ms to read


def image_digest(data: bytes) -> str:
    """What names an image by its bytes."""
    return hashlib.sha256(data).hexdigest()[:40]


def tree_key(image: str, segmenter: str, crop: Crop | None = None) -> str:
    """Where the tree is kept that a version of a segmenter grew of an image (its digest), or of a place in it."""
    part = "" if crop is None else "".join(f"-{side.start}-{side.stop}" for side in crop)
    return f"{image}{part}-{segmenter}"


def read_tree(folder: Path, key: str) -> CutTree | None:
    """The tree that a cache in this folder keeps under a key, or `None`. Raises `TreeFileError` for a damaged one."""
    try:
        return CutTree.from_bytes(_path(folder, key).read_bytes())
    except FileNotFoundError:
        return None


def write_tree(folder: Path, key: str, content: bytes) -> int:
    """Write the file of a tree into a cache's folder, from any process, for the cache to `register`; its size in bytes."""
    with atomic_file(_path(folder, key)) as write:
        return write(content)


def _path(folder: Path, key: str) -> Path:
    return folder / f"{key}{_SUFFIX}"


class TreeCache:
    """Cut trees by key, in a folder of its own and the last ones in memory; safe to share between threads.

    The least recently used files go when all together outgrow `quota` in bytes, and from memory the least recently used
    trees beyond `in_memory` bytes; the last one always stays. The folder is listed once, here. Raises `SettingsError`
    where it cannot be made or read.
    """

    def __init__(self, folder: Path, quota: int, *, in_memory: int = _IN_MEMORY) -> None:
        self._folder, self._quota, self._in_memory = folder, quota, in_memory
        self._lock = threading.Lock()
        self._trees: OrderedDict[str, CutTree] = OrderedDict()  # the longest unused first, as in _sizes
        self._tree_bytes = 0
        self._sizes = _open(folder)
        self._total = sum(self._sizes.values())

    def get(self, key: str) -> CutTree | None:
        """The tree kept under a key, in memory or in a file, or `None`; a damaged file is dropped."""
        tree = self.get_from_memory(key)
        if tree is None and (tree := self._read(key)) is not None:
            self.touch(key, tree)
        return tree

    def get_from_memory(self, key: str) -> CutTree | None:
        """The tree that memory holds under a key, or `None`."""
        with self._lock:
            tree = self._trees.get(key)
        if tree is not None:
            self.touch(key, tree)
        return tree

    def put(self, key: str, tree: CutTree) -> None:
        """Keep a tree: its file whole or not at all, whatever happens meanwhile. A full disk is logged, not raised."""
        self.put_bytes(key, tree.to_bytes())
        self.touch(key, tree)

    def put_bytes(self, key: str, content: bytes) -> None:
        """Keep the file of a tree that was made elsewhere, as `put` does, but not in memory."""
        try:
            with self._lock:
                self._register(key, write_tree(self._folder, key, content))
        except OSError as error:
            log.warning("the cut tree %s was not kept: %s", key, error)

    def register(self, key: str, size: int) -> None:
        """Count the file of so many bytes that another process has written into the folder."""
        with self._lock:
            self._register(key, size)

    def _register(self, key: str, size: int) -> None:
        self._count(key, size)
        self._evict()

    def _read(self, key: str) -> CutTree | None:
        """The tree in a key's file."""
        try:
            return read_tree(self._folder, key)
        except TreeFileError as error:
            log.warning("dropped %s: %s", _path(self._folder, key), error)
            with self._lock:
                self._drop(key)
            return None

    def touch(self, key: str, tree: CutTree) -> None:
        """Make a tree the most recently used, in memory, among the files, and for the next start."""
        with self._lock:
            self._remember(key, tree)
            if key in self._sizes:
                self._sizes.move_to_end(key)
        now = time.time_ns()  # finer than what the file system would take for now
        with suppress(OSError):  # evicted meanwhile, or never kept
            os.utime(_path(self._folder, key), ns=(now, now))

    def _remember(self, key: str, tree: CutTree) -> None:
        """Hold a tree in memory as the most recently used one, and let go of others until all fit."""
        before = self._trees.pop(key, None)
        self._trees[key] = tree
        self._tree_bytes += tree.nbytes - (0 if before is None else before.nbytes)
        while self._tree_bytes > self._in_memory and len(self._trees) > 1:
            _, unused = self._trees.popitem(last=False)
            self._tree_bytes -= unused.nbytes

    def _evict(self) -> None:
        """Drop the least recently used files until the rest fits the quota."""
        while self._total > self._quota:
            self._drop(next(iter(self._sizes)))

    def _drop(self, key: str) -> None:
        self._count(key, 0)
        _path(self._folder, key).unlink(missing_ok=True)

    def _count(self, key: str, size: int) -> None:
        """Take note of a file's size, 0 for one that goes."""
        self._total += size - self._sizes.pop(key, 0)
        if size:
            self._sizes[key] = size


def _open(folder: Path) -> OrderedDict[str, int]:
    """Make a cache's folder where there is none, and list it. Raises `SettingsError`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return _list(folder)
    except OSError as error:
        raise unusable_folder(folder, str(error.strerror)) from error


def _list(folder: Path) -> OrderedDict[str, int]:
    """Size in bytes of each tree's file, the longest unused first; what a killed process left half written goes."""
    for unfinished in folder.glob(f"*{_PART}"):
        unfinished.unlink(missing_ok=True)
    files = []
    for path in folder.glob(f"*{_SUFFIX}"):
        with suppress(FileNotFoundError):  # evicted by another process meanwhile
            files.append((path.stat(), path.name.removesuffix(_SUFFIX)))
    files.sort(key=lambda file: file[0].st_mtime_ns)
    return OrderedDict((key, status.st_size) for status, key in files)


@contextmanager
def atomic_file(path: Path) -> Iterator[Callable[[bytes], int]]:
    """A file that appears under its name when it is complete, and not at all where writing fails."""
    unfinished = path.with_name(f".{secrets.token_hex(8)}{_PART}")
    try:
        with unfinished.open("xb") as file:
            yield file.write
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
