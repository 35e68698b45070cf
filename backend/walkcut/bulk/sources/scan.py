"""Images of folders, glob patterns, files, manifests and cloud storage, one by one."""

import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from walkcut.bulk.items import Item, ItemFailure
from walkcut.bulk.jsonl import HashSet64
from walkcut.bulk.sources.manifests import is_manifest, read_rows, reference_of
from walkcut.bulk.sources.uris import (
    cloud,
    is_cloud,
    is_web,
    local_path,
    open_file,
    reason_of,
    resolve_uri,
    validate_uri,
    walk,
)
from walkcut.errors import RequestError, SettingsError
from walkcut.images import redact
from walkcut.images.decode import IMAGE_SUFFIXES

_WILDCARD = re.compile(r"[*?\[]")
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_MAX_PART_LENGTH = 150  # characters of a part of a key: file systems allow 255 bytes, with suffixes


def read_sources(
    sources: Sequence[str], *, image_key: str = "", data_key: str = "image", local_files_root: Path | None = None
) -> Iterator[Item | ItemFailure]:
    """Yield the images of folders, glob patterns, files, manifests and fsspec URLs, each once, in a stable order.

    `image_key` names the field of the reference in a manifest; rows without one are failures. Task data have the
    image's address under `data_key`; files below Label Studio's `local_files_root` have the address that it serves
    them at. Memory grows by 16 bytes per image, and with the largest folder. Raises `SettingsError` for a source that
    cannot be read.
    """
    references, keys = HashSet64(), HashSet64()
    for source in sources:
        for image in _images_of(source, image_key):
            if isinstance(image, ItemFailure):
                yield image
            elif references.add(image.reference):
                yield Item(_new_key(image, keys), image.reference, _task_data(image, data_key, local_files_root))


def _images_of(source: str, image_key: str) -> Iterator[Item | ItemFailure]:
    """Yield the images of a source, each with the name that its key is made from in place of the key."""
    try:
        validate_uri(source)
    except ValueError as error:
        raise SettingsError(str(error)) from error
    if is_web(source):
        return iter([Item(_last_part(source), source)])
    return _images_in_cloud(source, image_key) if is_cloud(source) else _local_images(source, image_key)


def _local_images(source: str, image_key: str) -> Iterator[Item | ItemFailure]:
    path = local_path(source)
    if path.is_dir():
        return _images_below(str(path))
    if path.exists():
        if is_manifest(source):
            return _images_of_manifest(source, image_key)
        return iter([Item(path.name, resolve_uri(".", source))])
    parts = path.parts
    first = next((index for index, part in enumerate(parts) if _WILDCARD.search(part)), len(parts))
    root, pattern = Path(*parts[:first]), "/".join(parts[first:])
    if not pattern or not root.is_dir():
        raise SettingsError(f"{redact(source)} does not exist: give a folder, an image, a manifest or a glob pattern")
    paths = (path for path in sorted(root.glob(pattern)) if path.is_file())
    return _require_images(
        source, (Item(path.relative_to(root).as_posix(), resolve_uri(".", str(path))) for path in paths)
    )


def _images_in_cloud(url: str, image_key: str) -> Iterator[Item | ItemFailure]:
    system, path = cloud(url)
    try:
        if _WILDCARD.search(path):
            matches = system.glob(path)
            return _require_images(url, (Item(_last_part(match), system.unstrip_protocol(match)) for match in matches))
        is_file, exists = system.isfile(path), system.exists(path)
    except Exception as error:  # each cloud storage has its own errors
        raise SettingsError(
            f"{redact(url)} cannot be listed ({reason_of(url, error)}): "
            "check the address, and that your credentials allow it"
        ) from error
    if not exists:
        raise SettingsError(f"{redact(url)} does not exist: check the address")
    if is_file:
        return _images_of_manifest(url, image_key) if is_manifest(url) else iter([Item(_last_part(url), url)])
    return _images_below(url)


def _images_below(folder: str) -> Iterator[Item | ItemFailure]:
    """Yield the files of a folder with the suffix of an image."""
    images = (file for file in walk(folder) if file.suffix.lower() in IMAGE_SUFFIXES)
    return _require_images(folder, (Item(str(image), resolve_uri(folder, str(image))) for image in images))


def _images_of_manifest(name: str, image_key: str) -> Iterator[Item | ItemFailure]:
    """Yield the images of a manifest, whose references are relative to its folder."""
    folder = name.rpartition("/")[0] if is_cloud(name) else str(local_path(name).parent)
    with open_file(name) as file:
        for row_index, row in enumerate(read_rows(name, file), 1):
            try:
                reference, data = reference_of(row, image_key)
            except (ValueError, RequestError) as error:
                key = _sanitised_key(f"{PurePosixPath(name).name}-row-{row_index}")
                yield ItemFailure(key, f"{name}, row {row_index}", "source", str(error))
                continue
            is_absolute = is_web(reference) or is_cloud(reference) or PurePosixPath(reference).is_absolute()
            key_name = _last_part(reference) if is_absolute else reference
            yield Item(key_name, resolve_uri(folder, reference), data)


def _require_images(source: str, images: Iterator[Item]) -> Iterator[Item | ItemFailure]:
    """Yield the images. Raises `SettingsError` if there are none."""
    first = next(images, None)
    if first is None:
        raise SettingsError(f"{source} holds no image: their names end in {', '.join(sorted(IMAGE_SUFFIXES))}")
    yield first
    yield from images


def _last_part(reference: str) -> str:
    """Return the last part of a URL or path."""
    return "" if reference.startswith("data:") else PurePosixPath(unquote(urlsplit(reference).path)).name


def _task_data(image: Item, data_key: str, root: Path | None) -> dict[str, Any]:
    """Return the data of an image's task, with the address at which Label Studio finds the image."""
    reference = image.reference
    if root is None or is_web(reference) or is_cloud(reference) or not Path(reference).is_relative_to(root):
        return {data_key: reference, **image.data}
    served = f"/data/local-files/?d={quote(Path(reference).relative_to(root).as_posix())}"
    return {**image.data, data_key: served}


def _new_key(image: Item, keys: HashSet64) -> str:
    """Return and add a new key: the image's name, with digests of its reference where that is taken."""
    path = PurePosixPath(image.key)
    key = _sanitised_key(str(path.with_suffix("")) if path.suffix.lower() in IMAGE_SUFFIXES else image.key)
    while not keys.add(key):
        key = f"{key}-{hashlib.sha256(image.reference.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"
    return key


def _sanitised_key(name: str) -> str:
    """Return a name of letters, digits, `._-` and `/` only, without hidden or parent folders."""
    parts = [_UNSAFE.sub("_", part).lstrip(".")[-_MAX_PART_LENGTH:] for part in name.split("/")]
    return "/".join(filter(None, parts)) or "image"
