"""Images of folders, glob patterns, files, lists and cloud storage, one by one."""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from walkcut.bulk.items import Item, ItemFailure, Skipped
from walkcut.bulk.jsonl import HashSet64
from walkcut.bulk.names import ImageNames, reference_name
from walkcut.bulk.sources.folders import File, Found, images_below, local_file, read_cloud_head, require_images
from walkcut.bulk.sources.manifests import IMAGE_KEYS, is_manifest, read_rows, reference_of
from walkcut.bulk.sources.uris import (
    cloud,
    is_cloud,
    is_web,
    local_path,
    open_file,
    reason_of,
    reference_stamp,
    resolve_uri,
    validate_uri,
)
from walkcut.errors import RequestError, SettingsError
from walkcut.images import redact
from walkcut.images.formats import HEAD_BYTES
from walkcut.labelstudio.task_data import value_at, with_value

REPEATED = "listed before"
_WILDCARD = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class Addresses:
    """Addresses at which Label Studio finds images that are files: below its local-files root, or below a URL.

    Tasks have the address at the path `data_key`. Without root and URL it is the file's path, which Label Studio cannot
    show.
    """

    data_key: str = "image"
    local_files_root: Path | None = None
    url_prefix: str = ""

    def address(self, reference: str, name: str) -> str:
        """Return the address of a reference, with a name below the URL, else the reference itself."""
        if is_web(reference):
            return reference
        if self.url_prefix:
            return f"{self.url_prefix.rstrip('/')}/{_quoted(name)}"
        if self.local_files_root is not None and not is_cloud(reference):
            for path in (Path(reference), Path(os.path.realpath(reference))):
                if path.is_relative_to(self.local_files_root):
                    return f"/data/local-files/?d={_quoted(path.relative_to(self.local_files_root).as_posix())}"
        return reference

    def check(self, reference: str, name: str) -> None:
        """Raise `ValueError` for a reference that has no name below the URL."""
        if self.url_prefix and not name and not is_web(reference):
            raise ValueError(f"{reference} is not in the folder of the list, so it is not below {self.url_prefix}")


def is_shown(address: object) -> bool:
    """Return whether Label Studio can show the image at an address of task data: it is no path of this machine."""
    return is_web(str(address)) or is_cloud(str(address))


def read_sources(
    sources: Sequence[str], *, image_key: str = "", addresses: Addresses | None = None, path_root: str = ""
) -> Iterator[Item | ItemFailure | Skipped]:
    """Yield the images of folders, glob patterns, files, manifests and fsspec URLs, each once, in a stable order.

    `image_key` names the field of the reference in a manifest, and may be a path such as `image.url`; rows without one
    are failures. Task data have the image's address. Names of images are relative to their source, or to `path_root`.
    Memory grows by 32 bytes per image, and with the largest folder. Raises `SettingsError` for a source that cannot be
    read.
    """
    addresses = addresses or Addresses()
    references, names, served = HashSet64(), ImageNames(path_root), HashSet64()
    for source in sources:
        for image in _images_of(source, image_key, addresses):
            if not isinstance(image, Item):
                yield image
            elif not references.add(image.reference):
                yield Skipped(redact(image.reference) if is_web(image.reference) else image.reference, REPEATED)
            else:
                if addresses.url_prefix and not is_web(image.reference) and not served.add(image.key):
                    raise SettingsError(
                        f"{image.reference} has the same address below {addresses.url_prefix} as another image: give "
                        "the folder that holds both as the source"
                    )
                yield names.assign(replace(image, data=_task_data(image, addresses)), image.key)


def _images_of(source: str, image_key: str, addresses: Addresses) -> Iterator[Found]:
    """Yield the images of a source, each with its path below the source in place of the key."""
    try:
        validate_uri(source)
    except ValueError as error:
        raise SettingsError(str(error)) from error
    if not source.strip():
        raise SettingsError("a source is empty: give a folder, an image or a list")
    if is_web(source):
        return iter([Item(_own_name(source), source, stamp=reference_stamp(source))])
    if is_cloud(source):
        return _images_in_cloud(source, image_key, addresses)
    return _local_images(source, image_key, addresses)


def _local_images(source: str, image_key: str, addresses: Addresses) -> Iterator[Found]:
    path = local_path(source)
    if path.is_dir():
        return images_below(str(path))
    if path.exists():
        return _image_or_list(source, path.name, image_key, addresses)
    parts = path.parts
    first = next((index for index, part in enumerate(parts) if _WILDCARD.search(part)), len(parts))
    root, pattern = Path(*parts[:first]), "/".join(parts[first:])
    if not pattern or not root.is_dir():
        raise SettingsError(f"{redact(source)} does not exist: give a folder, an image, a manifest or a glob pattern")
    return require_images(source, _matches(root, pattern))


def _matches(root: Path, pattern: str) -> Iterator[Item | Skipped]:
    """Yield the images among the files that match a pattern, and what is skipped."""
    for path in sorted(root.glob(pattern)):
        file = local_file(os.path.abspath(path), path.relative_to(root).as_posix())
        if not path.is_dir():
            yield file if isinstance(file, Skipped) else file.classify()
        elif "**" not in pattern:
            yield Skipped(str(path), "folder that matches a pattern: give it as a source")


def _images_in_cloud(url: str, image_key: str, addresses: Addresses) -> Iterator[Found]:
    system, path = cloud(url)
    try:
        if wildcard := _WILDCARD.search(path):
            root, matches = path[: path.rfind("/", 0, wildcard.start()) + 1], system.glob(path)
            return require_images(url, (_match_in_cloud(system, match, root) for match in matches))
        is_file, exists = system.isfile(path), system.exists(path)
    except Exception as error:  # each cloud storage has its own errors
        raise SettingsError(
            f"{redact(url)} cannot be listed ({reason_of(url, error)}): "
            "check the address, and that your credentials allow it"
        ) from error
    if not exists:
        raise SettingsError(f"{redact(url)} does not exist: check the address")
    return _image_or_list(url, _own_name(url), image_key, addresses) if is_file else images_below(url)


def _match_in_cloud(system: Any, match: str, root: str) -> Item | Skipped:
    reference = system.unstrip_protocol(match)
    name, read_head = match.removeprefix(root), partial(read_cloud_head, system, match)
    return File(name, reference, reference_stamp(reference), read_head).classify()


def _image_or_list(source: str, name: str, image_key: str, addresses: Addresses) -> Iterator[Found]:
    """Yield the image that a file is, or those that it lists."""
    try:
        with open_file(source) as file:
            head = file.read(HEAD_BYTES)
    except OSError as error:
        raise SettingsError(f"{source} cannot be read ({error.strerror}): allow walkcut to read it") from error
    if is_manifest(name, head):
        return _images_of_manifest(source, image_key, addresses)
    reference = resolve_uri(".", source)
    return iter([Item(name, reference, stamp=reference_stamp(reference))])


def _images_of_manifest(name: str, image_key: str, addresses: Addresses) -> Iterator[Item | ItemFailure]:
    """Yield the images of a manifest, whose references are relative to its folder."""
    folder = name.rpartition("/")[0] if is_cloud(name) else resolve_uri(".", str(local_path(name).parent))
    keys = (image_key,) if image_key else tuple(dict.fromkeys((addresses.data_key, *IMAGE_KEYS)))
    row_index = 0
    with open_file(name) as file:
        for row_index, row in enumerate(read_rows(name, file, keys), 1):
            try:
                reference, data = reference_of(row, keys)
                full = resolve_uri(folder, reference)
                path = _path_below(full, folder)
                addresses.check(full, path)
            except (ValueError, RequestError) as error:
                key = f"{PurePosixPath(name).name}-row-{row_index}"
                yield ItemFailure(key, f"{name}, row {row_index}", "source", str(error))
                continue
            if value_at(addresses.data_key, data) != reference:
                data = with_value(data, addresses.data_key, full)
            yield Item(path or _own_name(reference), full, data, stamp=reference_stamp(full))
    if not row_index:
        raise SettingsError(f"{name} lists no image: write one in each row, or leave the list out")


def _path_below(reference: str, folder: str) -> str:
    """Return a reference's path below a folder, empty if it is not there."""
    prefix = folder.rstrip("/") + "/"
    path = reference.removeprefix(prefix)
    return path if reference.startswith(prefix) and ".." not in path.split("/") else ""


def _own_name(reference: str) -> str:
    """Return the name of an image in its reference: a relative path, or the last part of an absolute one."""
    path = local_path(reference)
    if is_web(reference):
        return reference_name(reference)
    return path.name if path.is_absolute() or is_cloud(reference) else path.as_posix()


def _task_data(image: Item, addresses: Addresses) -> dict[str, Any]:
    """Return the data of an image's task, with the address at which Label Studio finds the image."""
    address = addresses.address(image.reference, image.key)
    is_known = isinstance(value_at(addresses.data_key, image.data), str) and address == image.reference
    return dict(image.data) if is_known else with_value(image.data, addresses.data_key, address)


def _quoted(path: str) -> str:
    """Quote a path for a URL; names of files may hold bytes that are not UTF-8."""
    return quote(os.fsencode(path))
