"""Names of images in the output of a run: their own, with their folders, and unique."""

import base64
import hashlib
import os
import re
from dataclasses import replace
from itertools import chain, count
from pathlib import PurePosixPath
from urllib.parse import parse_qsl, unquote, urlsplit

from walkcut.bulk.items import Item, ItemFailure
from walkcut.bulk.jsonl import HashSet64
from walkcut.images.decode import IMAGE_SUFFIXES

_SUFFIXES = IMAGE_SUFFIXES | {".avif", ".dng", ".heic", ".heif", ".jfif", ".jp2", ".jpe", ".svg"}
_UNWRITABLE = re.compile("[\0\ud800-\udc7f\udd00-\udfff]")  # what no file system takes
_MAX_BYTES = 255  # of a part of a path
_OUTPUT_SUFFIXES = {".png", ".txt", ".json", ".jsonl", ".xml", ".yaml"}
_DIGEST_CHARACTERS = 8
_LOCAL_FILES = "/data/local-files"
_MAX_QUERY_FIELDS = 32


class ImageNames:
    """Names that are taken: each image gets a key and a name that no image before it has. Holds 16 bytes for each.

    With a `path_root`, an absolute folder or the beginning of URLs, names are relative to it.
    """

    def __init__(self, path_root: str = "") -> None:
        self._is_relative, self._root, self._taken = bool(path_root), path_root.rstrip("/") + "/", HashSet64()

    def assign(self, image: Item, name: str) -> Item | ItemFailure:
        """Return an image with its key and its own name; a failure if it is not below the root.

        Where only the suffixes of two names differ, or not even those, the second key has a digest of the reference.
        Of two equal names the second is made from its key.
        """
        if self._is_relative:
            if not image.reference.startswith(self._root):
                reason = f"it is not below {self._root}: give the folder of all images as --path-root, or leave it out"
                return ItemFailure(self._new_key(name, image.reference, 0), image.reference, "source", reason)
            name = image.reference[len(self._root) :]
            name = unquote(urlsplit(name).path) if self._root.startswith("http") else name
        name = "/".join(part for part in name.split("/") if part not in {"", ".", ".."}) or "image"
        stem, suffix = split_suffix(name)
        key = self._new_key(stem, image.reference, max(4, len(suffix)))
        if not self._taken.add(f"/{name}"):  # no key begins with a slash
            name = key + suffix
            self._taken.add(f"/{name}")
        return replace(image, key=key, name=name)

    def _new_key(self, stem: str, reference: str, suffix_bytes: int) -> str:
        """Return a path that can be written with a suffix: the stem, or if that is taken, the stem with a digest."""
        *folders, last = stem.split("/")
        folder = "".join(f"{_writable(part)}{'_' * _is_reserved(part)}/" for part in folders)
        endings = chain([""], (f"-{_digest(f'{reference}{attempt}')}" for attempt in count()))
        keys = (folder + _writable(last, suffix_bytes + len(ending)) + ending for ending in endings)
        return next(key for key in keys if self._taken.add(key))


def reference_name(reference: str) -> str:
    """Return the name of the image at a URL or a path: the last part of its path, or a path in its query.

    >>> reference_name("https://e.org/a%20b.png?size=9"), reference_name("/data/local-files/?d=cam1/f1.png")
    ('a b.png', 'cam1/f1.png')
    >>> reference_name("https://e.org/show.php?image=/all/a.png")
    'a.png'
    """
    if reference[:5].lower() == "data:":
        return ""
    parts = urlsplit(reference)
    name = PurePosixPath(unquote(parts.path, errors="surrogateescape")).name
    if split_suffix(name)[1] or not parts.query:
        return name
    try:
        query = parse_qsl(parts.query, errors="surrogateescape", max_num_fields=_MAX_QUERY_FIELDS)
    except ValueError:  # it has more fields
        return name
    if parts.path.rstrip("/").endswith(_LOCAL_FILES):
        return dict(query).get("d", name)
    values = (_presigned(value) if field == "fileuri" else value for field, value in query)
    names = (PurePosixPath(unquote(urlsplit(value).path)).name for value in values)
    return next((other for other in names if split_suffix(other)[1]), name)


def split_suffix(name: str) -> tuple[str, str]:
    """Return a name without and with its suffix, which is empty where it is not that of an image.

    >>> split_suffix("cam1/f.1.PNG"), split_suffix("scan.2024")
    (('cam1/f.1', '.PNG'), ('scan.2024', ''))
    """
    suffix = PurePosixPath(name).suffix
    return (name[: -len(suffix)], suffix) if suffix.lower() in _SUFFIXES else (name, "")


def _writable(part: str, reserved: int = 1) -> str:
    """Return a part of a path without characters that cannot be written, cut to leave `reserved` bytes."""
    encoded = os.fsencode(_UNWRITABLE.sub("_", part))
    if len(encoded) <= _MAX_BYTES - reserved:
        return os.fsdecode(encoded)
    return encoded[: _MAX_BYTES - reserved].decode(errors="ignore")


def _is_reserved(folder: str) -> bool:
    """Return whether a file of the output, or of its checkpoint, may have the name of this folder."""
    return folder == ".walkcut" or PurePosixPath(folder).suffix.lower() in _SUFFIXES | _OUTPUT_SUFFIXES


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST_CHARACTERS]


def _presigned(value: str) -> str:
    """Return the URI in a link of Label Studio to a file of a storage."""
    try:
        return base64.urlsafe_b64decode(value).decode()
    except ValueError:
        return value
