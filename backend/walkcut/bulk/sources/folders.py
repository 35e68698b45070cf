"""Files of folders, on this machine and in cloud storage: images by name or content, and what is skipped and why."""

import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import Any, Final

from walkcut.bulk.items import Item, ItemFailure, Skipped
from walkcut.bulk.sources.uris import cloud, digest, is_cloud, stamp_of
from walkcut.errors import SettingsError
from walkcut.images.decode import IMAGE_SUFFIXES
from walkcut.images.formats import CONVERT, HEAD_BYTES, RAW_SUFFIXES, decoded_format, other_format

NO_IMAGE: Final = "no image"
OUTPUT: Final = "output of `walkcut prelabel`"
LOOP: Final = "a link to a folder that holds it"

_RUN_MARKER: Final = os.path.join(".walkcut", "run.json")  # in the output folder of a run
_CHANGES: Final = ("ETag", "etag", "md5Hash", "mtime", "LastModified", "last_modified", "updated", "created")
_OTHER_FILES: Final = ("ZIP archive", "gzip archive", "Git LFS pointer", "macOS metadata")

Found = Item | ItemFailure | Skipped


@dataclass(frozen=True)
class File:
    """A file with its path below the folder, its full address, its stamp, and a function that reads its beginning."""

    name: str
    reference: str
    stamp: str
    read_head: Callable[[], bytes]

    def classify(self) -> Item | Skipped:
        """Return the file as an image, by its ending or else by its content, or as skipped."""
        path = PurePosixPath(self.name)
        suffix = path.suffix.lower()
        if suffix in RAW_SUFFIXES:  # these may be TIFF files whose first image is a thumbnail
            return Skipped(self.reference, f"raw photo: {CONVERT}")
        if suffix in IMAGE_SUFFIXES and not path.name.startswith("._"):  # macOS keeps metadata in ._NAME.jpg
            return Item(self.name, self.reference, stamp=self.stamp)
        try:
            head = self.read_head()
        except Exception as error:  # noqa: BLE001 - each cloud storage has its own errors
            return Skipped(
                self.reference, f"cannot be read ({getattr(error, 'strerror', None) or type(error).__name__})"
            )
        if decoded_format(head):
            return Item(self.name, self.reference, stamp=self.stamp)
        other = other_format(head)
        return Skipped(self.reference, NO_IMAGE if not other or other in _OTHER_FILES else f"{other}: {CONVERT}")


def images_below(folder: str) -> Iterator[Found]:
    """Yield the images of a folder and its subfolders, and what is skipped there. Raises `SettingsError` for no image.

    Memory grows with the largest folder only.
    """
    files = _cloud_files(folder) if is_cloud(folder) else _local_files(os.path.abspath(folder))
    return require_images(folder, (file.classify() if isinstance(file, File) else file for file in files))


def require_images(source: str, images: Iterator[Found]) -> Iterator[Found]:
    """Yield the images and what is skipped. Raises `SettingsError` at the end if there was no image."""
    skipped, is_empty = Counter[str](), True
    for image in images:
        if isinstance(image, Skipped):
            skipped[image.reason] += 1
        else:
            is_empty = False
        yield image
    if is_empty:
        reasons = "; ".join(f"{count} skipped: {reason}" for reason, count in skipped.most_common())
        raise SettingsError(
            f"{source} holds no image that can be read ({reasons or 'no file'}): use JPEG, PNG, WebP, AVIF, GIF, BMP, "
            "TIFF or binary PPM"
        )


def local_file(path: str, name: str) -> File | Skipped:
    """Return a file of this machine, by its absolute path; skipped if it is no file, such as a broken link."""
    try:
        status = os.stat(path)
    except OSError as error:
        return Skipped(path, f"cannot be read ({error.strerror})")
    if not stat.S_ISREG(status.st_mode):  # reading a pipe would wait for a writer
        return Skipped(path, "neither a file nor a folder")
    return File(name, path, stamp_of(path, status.st_size, status.st_mtime_ns), partial(_read_head, path))


def _read_head(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(HEAD_BYTES)


def read_cloud_head(system: Any, path: str) -> bytes:
    """Return the beginning of a file in one of fsspec's file systems."""
    return bytes(system.cat_file(path, start=0, end=HEAD_BYTES))


def _local_files(root: str) -> Iterator[File | ItemFailure | Skipped]:
    """Yield the files of a folder, those of each folder before those of its subfolders, both in order of name.

    Links to folders are followed, but not into a folder that holds them.
    """
    prefix = root.rstrip(os.sep) + os.sep
    pending: list[tuple[str, frozenset[tuple[int, int]]]] = [(root, frozenset())]
    while pending:
        folder, ancestors = pending.pop()
        try:
            status = os.stat(folder)
            with os.scandir(folder) as entries:
                names = sorted((entry.name, entry.is_dir()) for entry in entries)
        except OSError as error:
            reason = f"the folder cannot be listed ({error.strerror}): allow walkcut to read it"
            yield ItemFailure(f"folder-{digest(folder)}", folder, "source", reason)
            continue
        identity = (status.st_dev, status.st_ino)
        if identity in ancestors:
            yield Skipped(folder, LOOP)
        elif folder != root and os.path.exists(os.path.join(folder, _RUN_MARKER)):
            yield Skipped(folder, OUTPUT)
        else:
            for name in (name for name, is_folder in names if not is_folder):
                path = os.path.join(folder, name)
                yield local_file(path, path[len(prefix) :])
            inner = ancestors | {identity}
            pending += [(os.path.join(folder, name), inner) for name, is_folder in reversed(names) if is_folder]


def _cloud_files(url: str) -> Iterator[File]:
    """Yield the files below a folder in cloud storage, in order of name within each folder."""
    system, root = cloud(url)
    for parent, folders, files in system.walk(root, detail=True):
        for name in sorted(folders):
            folders[name] = folders.pop(name)  # in the order in which they are walked
        for name, info in sorted(files.items()):
            path = f"{parent.rstrip('/')}/{name}"
            relative = PurePosixPath(path).relative_to(root).as_posix()
            changes = (str(info[field]) for field in _CHANGES if info.get(field))
            reference = f"{url.rstrip('/')}/{relative}"
            stamp = stamp_of(reference, info.get("size"), next(changes, ""))
            yield File(relative, reference, stamp, partial(read_cloud_head, system, path))
