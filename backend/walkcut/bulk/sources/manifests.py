"""Manifests of images: JSON, JSON Lines, CSV and Parquet, read row by row."""

import codecs
import csv
import json
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import PurePosixPath
from typing import Any

from walkcut.bulk.sources.uris import BinaryFile, validate_uri
from walkcut.errors import SettingsError
from walkcut.images import kind_of
from walkcut.labelstudio.json_input import check_depth

IMAGE_KEYS = ("image", "url", "path", "file_name")

_CHUNK_BYTES = 1 << 20
_BATCH_ROWS = 1024


def is_manifest(name: str) -> bool:
    """Return whether a file has the suffix of a manifest.

    >>> is_manifest("images.jsonl"), is_manifest("image.jpg")
    (True, False)
    """
    return PurePosixPath(name).suffix.lower() in _READERS


def read_rows(name: str, file: BinaryFile) -> Iterator[object]:
    """Yield the rows of a manifest of the kind that its suffix names: strings, objects, or a `ValueError` each.

    Raises `SettingsError` for a damaged file that cannot be read further.
    """
    try:
        yield from _READERS[PurePosixPath(name).suffix.lower()](file)
    except (ValueError, RecursionError, csv.Error) as error:
        raise SettingsError(
            f"{name} is not a valid manifest ({error}): correct it; the same command then continues"
        ) from error


def reference_of(row: object, image_key: str) -> tuple[str, Mapping[str, Any]]:
    """Return a row's reference and task data; objects have it under `image_key`, or the first of `IMAGE_KEYS`.

    A row that is a task of Label Studio has its data there. Raises `ValueError` for a row without a reference, and as
    `check_depth`.
    """
    if isinstance(row, ValueError):
        raise row
    if isinstance(row, str):
        return validate_uri(row), {}
    check_depth(row)
    if not isinstance(row, dict):
        raise ValueError(f"the row is {kind_of(row)}: write a string or an object")  # noqa: TRY004
    keys = (image_key,) if image_key else IMAGE_KEYS
    data = row["data"] if isinstance(row.get("data"), dict) and not set(keys) & set(row) else row
    key = next((key for key in keys if key in data), None)
    if key is None:
        raise ValueError(f"the row has no {' or '.join(keys)}: give the name of its image field with --image-key")
    reference = data[key]
    if not isinstance(reference, str) or not reference.strip():
        raise ValueError(f"its {key} is {kind_of(reference)}: write a path or a URL")
    return validate_uri(reference), {str(name): value for name, value in data.items()}


def _read_json(file: BinaryFile) -> Iterator[object]:
    """Yield the elements of a JSON array without holding all of it."""
    decoder = json.JSONDecoder()
    chunks = codecs.iterdecode(iter(partial(file.read, _CHUNK_BYTES), b""), "utf-8-sig")
    text = next(chunks, "").lstrip()
    if not text.startswith("["):
        raise ValueError("it does not begin with [")
    text = text[1:]
    while not (text := text.lstrip(" \t\r\n,")).startswith("]"):
        try:
            row, end = decoder.raw_decode(text)
        except ValueError:
            chunk = next(chunks, None)
            if chunk is None:
                raise
            text += chunk
        else:
            yield row
            text = text[end:]


def _read_json_lines(file: BinaryFile) -> Iterator[object]:
    for line in file:
        if line.strip():
            try:
                yield json.loads(line)
            except (ValueError, RecursionError) as error:
                yield ValueError(f"the row is not valid JSON ({error}): correct it")


def _read_csv(file: BinaryFile) -> Iterator[object]:
    for row in csv.DictReader(codecs.iterdecode(file, "utf-8-sig")):
        yield {name: value for name, value in row.items() if name is not None}


def _read_parquet(file: BinaryFile) -> Iterator[object]:
    try:
        from pyarrow.parquet import ParquetFile  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise SettingsError("Parquet cannot be read here: install walkcut[bulk]") from error
    for batch in ParquetFile(file).iter_batches(batch_size=_BATCH_ROWS):
        for row in batch.to_pylist():
            yield json.loads(json.dumps(row, default=str))


_READERS = {
    ".json": _read_json,
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}
