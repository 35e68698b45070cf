"""Lists of images: JSON, JSON lines, CSV and Parquet, row by row."""

import codecs
import csv
import json
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from walkcut.bulk.sources.uris import BinaryFile
from walkcut.errors import SettingsError
from walkcut.images import redact
from walkcut.images.policy import redacted_reason
from walkcut.labelstudio import check_depth

IMAGE_KEYS = ("image", "url", "path", "file_name")

_CHUNK = 1 << 20  # bytes
_ROWS = 1024
_DAMAGED = "no list of references, or a damaged one"


def is_list(name: str) -> bool:
    """Whether a file's name says that it is a list."""
    return PurePosixPath(name).suffix.lower() in _READERS


def read_rows(name: str, file: BinaryFile) -> Iterator[object]:
    """The rows of a list, of the kind that its name says: texts, objects, or an error in place of a damaged one.

    Raises `SettingsError` for a list that cannot be read on.
    """
    try:
        yield from _READERS[PurePosixPath(name).suffix.lower()](file)
    except (ValueError, RecursionError, csv.Error) as error:
        raise SettingsError(f"{name} is {_DAMAGED} ({error}): mend it; `walkcut prelabel` then goes on") from error


def reference_of(row: object, image_key: str) -> tuple[str, Mapping[str, Any]]:
    """A row's reference, and the data of its task; in an object it stands under `image_key`, or the first usual one.

    A task of Label Studio counts as its data. Raises `ValueError` for a row without a reference, and as `check_depth`.
    """
    if isinstance(row, ValueError):
        raise row
    if isinstance(row, str):
        return validate_uri(row), {}
    check_depth(row)
    if not isinstance(row, dict):
        raise ValueError(f"it is {_shown(row)}, neither a text nor an object: write a reference")  # noqa: TRY004
    wanted = (image_key,) if image_key else IMAGE_KEYS
    data = row["data"] if isinstance(row.get("data"), dict) and not set(wanted) & set(row) else row
    name = next((each for each in wanted if each in data), None)
    if name is None:
        raise ValueError(f"it has none of {', '.join(wanted)}: say with --image-key where the reference is")
    reference = data[name]
    if not isinstance(reference, str) or not reference.strip():
        raise ValueError(f"its {name} is {_shown(reference)}: write a reference there")
    return validate_uri(reference), {str(key): value for key, value in data.items()}


def validate_uri(reference: str) -> str:
    """A reference without blanks around it. Raises `ValueError` for a URL that nobody can follow."""
    try:
        urlsplit(reference.strip())
    except ValueError as error:
        raise ValueError(f"{redact(reference)} cannot be followed ({redacted_reason(error)}): mend it") from error
    return reference.strip()


def _shown(value: object) -> str:
    return json.dumps(value, default=str)[:60]


def _json(file: BinaryFile) -> Iterator[object]:
    """The elements of one JSON array, without holding it."""
    decoder, place = json.JSONDecoder(), 1
    text = codecs.iterdecode(iter(partial(file.read, _CHUNK), b""), "utf-8-sig")
    held = next(text, "").lstrip()
    if not held.startswith("["):
        raise ValueError("it begins with no [")
    while True:
        place += len(held[place:]) - len(held[place:].lstrip(" \t\r\n,"))
        if held[place : place + 1] == "]":
            return
        try:
            row, place = decoder.raw_decode(held, place)
        except ValueError:
            more = next(text, None)
            if more is None:
                raise
            held, place = held[place:] + more, 0
            continue
        yield row


def _json_lines(file: BinaryFile) -> Iterator[object]:
    for line in file:
        if line.strip():
            try:
                yield json.loads(line)
            except (ValueError, RecursionError) as error:
                yield ValueError(f"it is no JSON ({error}): mend the line")


def _csv(file: BinaryFile) -> Iterator[object]:
    for row in csv.DictReader(codecs.iterdecode(file, "utf-8-sig")):
        yield {name: value for name, value in row.items() if name is not None}


def _parquet(file: BinaryFile) -> Iterator[object]:
    try:
        from pyarrow.parquet import ParquetFile  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise SettingsError("a Parquet list cannot be read here: install walkcut[bulk]") from error
    for batch in ParquetFile(file).iter_batches(batch_size=_ROWS):
        for row in batch.to_pylist():
            yield json.loads(json.dumps(row, default=str))


_READERS = {".json": _json, ".jsonl": _json_lines, ".ndjson": _json_lines, ".csv": _csv, ".parquet": _parquet}
