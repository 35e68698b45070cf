"""References to files: on this machine, in cloud storage (fsspec), in Label Studio or on the web."""

import hashlib
import os
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from walkcut.bulk.items import Item
from walkcut.errors import ImageFetchError, SettingsError
from walkcut.images import FetchPolicy, ImageLoader, redact, redacted_text
from walkcut.images.policy import redacted_reason
from walkcut.images.references import label_studio_path

UNKNOWN_STATE = "?"  # begins the stamps that tell addresses only
_BLANKS = "\ufeff\u200b"  # that str.strip leaves

BinaryFile = Any  # open for reading, of this machine or of fsspec, whose files have no common type


def validate_uri(reference: str) -> str:
    """Return a reference without surrounding blanks. Raises `ValueError` for a malformed URL."""
    reference = reference.strip().strip(_BLANKS).strip()
    try:
        urlsplit(reference)
    except ValueError as error:
        raise ValueError(
            f"{redact(reference)} is not a valid URL ({redacted_reason(error)}): correct the reference"
        ) from None
    return reference


def digest(text: str) -> str:
    """Return 16 hexadecimal digits that tell a text from others, which may hold parts of file names in any encoding."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def stamp_of(reference: str, size: object, changed: object) -> str:
    """Return an image's stamp, which tells whether another image has taken its place, or the file has changed."""
    return digest(f"{reference}\n{size}\n{changed}")


def reference_stamp(reference: str) -> str:
    """Return the stamp of an image in a list: of a file's state, or `?` and one of the address for what is elsewhere.

    The query is left out of addresses, as it may be a signature that is new in each list. The stamp of a file that is
    not there is empty.
    """
    if reference[:5].lower() == "data:":
        return digest(reference)
    if is_web(reference) or is_cloud(reference):
        return UNKNOWN_STATE + digest(reference.partition("?")[0])
    try:
        status = local_path(reference).stat()
    except (OSError, ValueError):  # ValueError: a name that no file can have
        return ""
    return stamp_of(reference, status.st_size, status.st_mtime_ns)


def is_web(reference: str) -> bool:
    """Return whether the image loader fetches a reference: from the web, Label Studio, or a data URL."""
    if reference[:5].lower() == "data:" or reference[:6].lower().startswith(("http:", "https:")):
        return True
    return label_studio_path(reference, None) is not None and not Path(reference).exists()


def is_cloud(reference: str) -> bool:
    """Return whether fsspec reads a reference."""
    return "://" in reference and not is_web(reference) and not reference.startswith("file://")


def local_path(reference: str) -> Path:
    """Return the path of a reference on this machine, which may be a file:// URL."""
    return Path(unquote(urlsplit(reference).path) if reference.startswith("file://") else reference)


def resolve_uri(folder: str, reference: str) -> str:
    """Return an absolute reference, from one that may be relative to a folder.

    >>> resolve_uri("s3://bucket/images", "a.jpg"), resolve_uri("/images", "https://example.org/b.jpg")
    ('s3://bucket/images/a.jpg', 'https://example.org/b.jpg')
    """
    if is_web(reference) or is_cloud(reference):
        return reference
    if is_cloud(folder):
        return f"{folder.rstrip('/')}/{reference}"
    return os.path.abspath(Path(folder) / local_path(reference))  # unlike Path.resolve, keeps symbolic links


def read_image(item: Item, loader: ImageLoader, policy: FetchPolicy) -> bytes:
    """Return the bytes of an item's image, within the policy's limit. Raises `ImageFetchError`."""
    reference = item.reference
    if item.task_id is not None or is_web(reference):
        return loader.fetch(reference, item.task_id)
    path = local_path(reference)
    if not is_cloud(reference) and path.exists() and not path.is_file():
        raise ImageFetchError(f"{path} is not a file: give the path of an image")
    try:
        with open_file(reference) as file:
            data = file.read(policy.max_bytes + 1)
    except SettingsError as error:
        raise ImageFetchError(str(error)) from error
    except Exception as error:  # each cloud storage has its own errors
        reason = getattr(error, "strerror", None) or reason_of(reference, error)
        raise ImageFetchError(
            f"{redact(reference)} cannot be read ({reason}): check that it exists and that walkcut may read it"
        ) from error
    policy.check_bytes(len(data))
    return data


def shown(reference: str) -> str:
    """Return a reference for messages: the path of a file on this machine in full, others without possible secrets."""
    return reference if os.path.isabs(reference) and os.path.exists(reference) else redacted_text(reference)


def reason_of(reference: str, error: Exception) -> str:
    """Return an error's text, or only its name where the text may quote what `redact` hides."""
    is_open = redact(reference) == repr(reference)
    return (str(error) if is_open else "") or type(error).__name__


def open_file(reference: str) -> BinaryFile:
    """Open a file of this machine or in cloud storage for reading."""
    if not is_cloud(reference):
        return local_path(reference).open("rb")
    system, path = cloud(reference)
    return system.open(path, "rb")


def cloud(url: str) -> tuple[Any, str]:
    """Return fsspec's file system of a URL, and the path in it. Raises `SettingsError`."""
    if "::" in url:
        raise SettingsError(f"{redact(url)} chains file systems, which is not supported: give a single URL")
    try:
        import fsspec  # noqa: PLC0415 - an extra

        system, path = fsspec.core.url_to_fs(url, use_listings_cache=False)
    except ImportError as error:
        raise SettingsError(
            f"{redact(url)} cannot be read here ({reason_of(url, error)}): "
            "install walkcut[bulk], and s3fs for s3:// or gcsfs for gs://"
        ) from error
    except ValueError as error:
        raise SettingsError(
            f"{redact(url)} has a protocol that fsspec does not know ({reason_of(url, error)}): use s3:// or gs://"
        ) from error
    return system, path
