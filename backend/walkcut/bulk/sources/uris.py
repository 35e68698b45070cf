"""Where files are: on this machine, in a cloud storage (fsspec), in Label Studio or on the web."""

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, runtime_checkable
from urllib.parse import unquote, urlsplit

from walkcut.bulk.items import Item
from walkcut.errors import ImageFetchError, SettingsError
from walkcut.images import FetchPolicy, ImageLoader, redact
from walkcut.images.references import label_studio_path


@runtime_checkable
class BinaryFile(Protocol):
    """A file open for reading, of this machine or of fsspec."""

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes."""
        ...

    def __iter__(self) -> Iterator[bytes]: ...

    def close(self) -> None:
        """Let go of it."""
        ...


def is_web(reference: str) -> bool:
    """Whether the hardened fetcher is asked for a reference: the web, Label Studio, or the reference itself."""
    if reference[:5].lower() == "data:" or reference[:8].lower().startswith(("http://", "https://")):
        return True
    return label_studio_path(reference, None) is not None and not Path(reference).exists()


def is_cloud(reference: str) -> bool:
    """Whether fsspec is asked for a reference."""
    return "://" in reference and not is_web(reference) and not reference.startswith("file://")


def local_path(reference: str) -> Path:
    """The path of a reference on this machine, which may be a file:// URL."""
    return Path(unquote(urlsplit(reference).path) if reference.startswith("file://") else reference)


def resolve_uri(folder: str, reference: str) -> str:
    """A reference as a file in this folder holds it: relative to the folder, unless it says where it is."""
    if is_web(reference) or is_cloud(reference):
        return reference
    if is_cloud(folder):
        return f"{folder.rstrip('/')}/{reference}"
    return os.path.abspath(Path(folder) / local_path(reference))  # links stay as they are named


def read_image(item: Item, source: ImageLoader, policy: FetchPolicy) -> bytes:
    """The bytes of an item's image. Raises `ImageFetchError` where they cannot be had."""
    if item.task is not None or is_web(item.reference):
        return source.fetch(item.reference, item.task)
    if is_cloud(item.reference):
        return _read(lambda: open_cloud(item.reference), item.reference, policy)
    path = local_path(item.reference)
    if path.exists() and not path.is_file():
        raise ImageFetchError(f"{path} is no file: name an image")
    return _read(lambda: path.open("rb"), item.reference, policy)


def open_cloud(url: str) -> BinaryFile:
    """A file in a cloud storage, open for reading."""
    system, path = cloud(url)
    return system.open(path, "rb")


def cloud(url: str) -> tuple[Any, str]:
    """The file system of a URL, and its path there. Raises `SettingsError` where fsspec or its part is missing."""
    if "::" in url:
        raise SettingsError(f"{redact(url)} chains file systems, which is not supported: name the place itself")
    try:
        import fsspec  # noqa: PLC0415 - an extra

        system, path = fsspec.core.url_to_fs(url, use_listings_cache=False)
    except ImportError as error:
        raise SettingsError(
            f"{redact(url)} cannot be read here ({error}): install walkcut[bulk], and s3fs for s3:// or gcsfs for gs://"
        ) from error
    except ValueError as error:
        raise SettingsError(f"{redact(url)} is of no kind that fsspec reads ({error})") from error
    return system, path


def walk_local(folder: Path) -> Iterator[PurePosixPath]:
    """All files below a folder, by name, relative to it; memory grows with its largest folder alone."""
    for place, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            yield PurePosixPath((Path(place) / name).relative_to(folder).as_posix())


def walk_cloud(url: str) -> Iterator[PurePosixPath]:
    """All files below a prefix in a cloud storage, as `walk_local` gives them."""
    system, root = cloud(url)
    for place, folders, files in system.walk(root):
        folders.sort()
        for name in sorted(files):
            yield PurePosixPath(place).relative_to(PurePosixPath(root)) / name


def _read(opened: Callable[[], BinaryFile], reference: str, policy: FetchPolicy) -> bytes:
    """All of a file, if it is not too large."""
    try:
        with closing(opened()) as file:
            data = file.read(policy.max_bytes + 1)
    except Exception as error:  # each cloud storage has errors of its own
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ImageFetchError(
            f"{redact(reference)} cannot be read ({reason}): see that it is there, and readable"
        ) from error
    policy.check_bytes(len(data))
    return data
