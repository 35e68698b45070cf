"""Where a bulk run's images come from, one by one: folders, globs, files, lists, cloud storages, projects."""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from walkcut.bulk.checkpoint import ItemFailure
from walkcut.bulk.items import Item
from walkcut.bulk.jsonl import HashSet64
from walkcut.bulk.sources.manifests import is_list, read_rows, reference_of, validate_uri
from walkcut.bulk.sources.uris import (
    cloud,
    is_cloud,
    is_web,
    local_path,
    open_cloud,
    resolve_uri,
    walk_cloud,
    walk_local,
)
from walkcut.errors import RequestError, SettingsError
from walkcut.images import redact
from walkcut.labelstudio import BrushControl, read_task

IMAGES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pfm"})

_GLOB = re.compile(r"[*?\[]")
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST = 150  # characters of a part of a key: file systems take 255 bytes, and suffixes follow


@dataclass(frozen=True)
class _Found:
    """An image that was found: what its key is made of, its reference, and its task's data."""

    name: str
    reference: str
    data: Mapping[str, Any] = field(default_factory=dict)


def read_sources(
    names: Sequence[str], *, image_key: str = "", data_key: str = "image", root: Path | None = None
) -> Iterator[Item | ItemFailure]:
    """The images of folders, globs, files, lists and fsspec's URLs, each once, in an order that does not change.

    `image_key` says where the reference is in the rows of a list. Rows without one are failures. Task data have the
    image's address under `data_key`; files below Label Studio's `root` of local files have the one that it gives
    them. Memory grows by 16 bytes an image, and with the largest folder. Raises `SettingsError` for a source that
    cannot be had.
    """
    references, keys = HashSet64(), HashSet64()
    for name in names:
        for found in _find(name, image_key):
            if isinstance(found, ItemFailure):
                yield found
            elif references.add(found.reference):
                address = _address(found.reference, root)
                data = (
                    {data_key: address, **found.data}
                    if address == found.reference
                    else {**found.data, data_key: address}
                )
                yield Item(_new_key(found, keys), found.reference, data)


def project_items(
    tasks: Iterable[tuple[Mapping[str, Any], frozenset[str]]], controls: Sequence[BrushControl], versions: Iterable[str]
) -> Iterator[Item | ItemFailure]:
    """The images of a project's tasks, each with its predictions' versions, that lack one of these `versions`.

    A task of which one image is missing is a failure as a whole.
    """
    wanted = frozenset(versions)
    for document, present in tasks:
        if wanted <= present:
            continue
        task = read_task(document)
        keys = task_keys(task.id, controls)
        try:
            references = [task.reference(control) for control in controls]
        except RequestError as error:
            yield ItemFailure(keys[0], f"task {task.id}", "source", str(error))
            continue
        for place, (key, reference) in enumerate(zip(keys, references, strict=True)):
            yield Item(key, reference, task.data, task.id, place)


def task_keys(task: int, controls: Sequence[BrushControl]) -> list[str]:
    """The keys of a task's images, in the order of their targets."""
    return [f"task-{task}-{place}" if len(controls) > 1 else f"task-{task}" for place, _ in enumerate(controls, 1)]


def _find(name: str, image_key: str) -> Iterator[_Found | ItemFailure]:
    """The images of one source."""
    try:
        validate_uri(name)
    except ValueError as error:
        raise SettingsError(str(error)) from error
    if is_web(name):
        return iter([_Found(_last_part(name), name)])
    return _find_cloud(name, image_key) if is_cloud(name) else _find_local(name, image_key)


def _find_local(name: str, image_key: str) -> Iterator[_Found | ItemFailure]:
    path = local_path(name)
    if path.is_dir():
        return _images(walk_local(path), str(path))
    if path.exists():
        return _list(name, image_key) if is_list(name) else iter([_Found(path.name, resolve_uri(".", name))])
    fixed, pattern = _split_glob(name)
    if not pattern or not Path(fixed or ".").is_dir():
        raise SettingsError(f"there is no {name}: name a folder, an image, a list or a pattern")
    found = (each for each in sorted(Path(fixed or ".").glob(pattern)) if each.is_file())
    return _some(
        name, (_Found(each.relative_to(fixed or ".").as_posix(), resolve_uri(".", str(each))) for each in found)
    )


def _find_cloud(url: str, image_key: str) -> Iterator[_Found | ItemFailure]:
    system, path = cloud(url)
    is_pattern = _GLOB.search(path) is not None
    try:
        matches = system.glob(path) if is_pattern else []
        is_file, exists = (False, True) if is_pattern else (system.isfile(path), system.exists(path))
    except Exception as error:  # each cloud storage has errors of its own
        raise SettingsError(f"{redact(url)} cannot be listed ({error}): see that you may read it") from error
    if is_pattern:
        return _some(url, (_Found(_last_part(each), system.unstrip_protocol(each)) for each in matches))
    if not exists:
        raise SettingsError(f"there is nothing at {redact(url)}: see that the address is right")
    if is_file:
        return _list(url, image_key) if is_list(url) else iter([_Found(_last_part(url), url)])
    return _images(walk_cloud(url), url)


def _images(names: Iterable[PurePosixPath], folder: str) -> Iterator[_Found | ItemFailure]:
    """The files of a folder that are named as images are."""
    found = (name for name in names if name.suffix.lower() in IMAGES)
    return _some(folder, (_Found(str(name), resolve_uri(folder, str(name))) for name in found))


def _list(name: str, image_key: str) -> Iterator[_Found | ItemFailure]:
    """The images of a list, whose references are relative to its folder."""
    folder = name.rpartition("/")[0] if is_cloud(name) else str(local_path(name).parent)
    with closing(open_cloud(name) if is_cloud(name) else local_path(name).open("rb")) as file:
        for number, row in enumerate(read_rows(name, file), 1):
            try:
                reference, data = reference_of(row, image_key)
            except (ValueError, RequestError) as error:
                place = f"{PurePosixPath(name).name}-row-{number}"
                yield ItemFailure(_safe(place), f"{name}, row {number}", "source", str(error))
                continue
            relative = not (is_web(reference) or is_cloud(reference) or PurePosixPath(reference).is_absolute())
            yield _Found(reference if relative else _last_part(reference), resolve_uri(folder, reference), data)


def _some(name: str, found: Iterator[_Found]) -> Iterator[_Found | ItemFailure]:
    """The same images. Raises `SettingsError` where there are none."""
    first = next(found, None)
    if first is None:
        raise SettingsError(f"there is no image in {name}: their names end in {', '.join(sorted(IMAGES))}")
    yield first
    yield from found


def _split_glob(pattern: str) -> tuple[str, str]:
    """The folder before the first part with wildcards, and the rest."""
    parts = PurePosixPath(pattern).parts
    first = next((place for place, part in enumerate(parts) if _GLOB.search(part)), len(parts))
    return str(PurePosixPath(*parts[:first])), "/".join(parts[first:])


def _last_part(reference: str) -> str:
    """The last part of a URL or path."""
    return "" if reference.startswith("data:") else PurePosixPath(unquote(urlsplit(reference).path)).name


def _address(reference: str, root: Path | None) -> str:
    """Where Label Studio finds an image."""
    if root is None or is_web(reference) or is_cloud(reference) or not Path(reference).is_relative_to(root):
        return reference
    return f"/data/local-files/?d={quote(Path(reference).relative_to(root).as_posix())}"


def _new_key(found: _Found, keys: HashSet64) -> str:
    """A key that no image before has: made of the name, and of the reference where that does not suffice."""
    path = PurePosixPath(found.name)
    key = _safe(str(path.with_suffix("")) if path.suffix.lower() in IMAGES else found.name)
    while not keys.add(key):
        key = f"{key}-{hashlib.sha256(found.reference.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"
    return key


def _safe(name: str) -> str:
    """A name of letters, digits, `._-` and `/` alone, that leads nowhere else."""
    parts = [_UNSAFE.sub("_", part).lstrip(".")[-_LONGEST:] for part in name.split("/")]
    return "/".join(filter(None, parts)) or "image"
