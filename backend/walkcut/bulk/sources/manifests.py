"""Lists of images: JSON, JSON Lines, tables (CSV, TSV), lines and Parquet, told by their content, read row by row."""

import codecs
import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, product
from pathlib import PurePosixPath
from typing import Any, Final

from walkcut.bulk.sources.uris import BinaryFile, is_web, validate_uri
from walkcut.errors import SettingsError
from walkcut.images import kind_of
from walkcut.images.decode import IMAGE_SUFFIXES
from walkcut.images.formats import decoded_format, other_format
from walkcut.labelstudio.json_input import check_depth
from walkcut.labelstudio.task_data import value_at

IMAGE_KEYS: Final = ("image", "url", "path", "file_name")

_LIST_SUFFIXES: Final = frozenset((".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".txt", ".lst"))
_SPREADSHEETS: Final = frozenset((".xlsx", ".xls", ".ods"))
_LISTS_OF_DOCUMENTS: Final = ("images", "tasks", "items", "data")  # of COCO and others
_DELIMITERS: Final = ",;\t|"
_CHUNK: Final = 1 << 20  # characters
_BATCH_ROWS: Final = 1024
_PARQUET: Final = b"PAR1"
_HEAD_BYTES: Final = 1 << 16
_JSON_START: Final = re.compile(r'\s*(\{|\[\s*["{\[\]])')
_JSON_SEPARATORS: Final = re.compile(r"[ \t\r\n,]*")
_DECODER: Final = json.JSONDecoder(parse_constant=lambda _name: None)  # NaN and infinities are no JSON
_DELIMITER_LINE: Final = re.compile(r"sep=(.)\s*")  # of Excel

csv.field_size_limit(1 << 28)  # characters, for images as data: URLs


def is_manifest(name: str, head: bytes) -> bool:
    """Return whether a file is a list of images rather than an image, by its name and its first bytes.

    >>> is_manifest("images.jsonl", b""), is_manifest("train", b"a.jpg"), is_manifest("image.jpg", b"no image")
    (True, True, False)
    """
    suffix = PurePosixPath(name).suffix.lower()
    if suffix in _SPREADSHEETS:
        raise SettingsError(f"{name} is a spreadsheet, which is not read: save it as CSV")
    is_image = suffix in IMAGE_SUFFIXES or decoded_format(head) or other_format(head)
    is_text = b"\0" not in head or _encoding(head) == "utf-16"
    return suffix in _LIST_SUFFIXES or (not is_image and bool(head) and (is_text or head.startswith(_PARQUET)))


def read_rows(name: str, file: BinaryFile, keys: Sequence[str] = IMAGE_KEYS) -> Iterator[object]:
    """Yield the rows of a list of images: strings, objects, or a `ValueError` each.

    The format is told by the content; `keys` are the possible names of a table's column with the images. Raises
    `SettingsError` for a damaged file that cannot be read further, and for a table without such a column.
    """
    head = file.read(_HEAD_BYTES)
    file.seek(0)
    suffix = PurePosixPath(name).suffix.lower()
    try:
        if head.startswith(_PARQUET) or suffix == ".parquet":
            yield from _read_parquet(file)
            return
        start = head.decode(_encoding(head), "ignore")
        if "\0" in start:
            raise SettingsError(f"{name} holds NUL characters: save it as UTF-8")
        with io.TextIOWrapper(file, _encoding(head), newline="") as text:
            is_lines = suffix in (".jsonl", ".ndjson") and not start.lstrip().startswith("[")
            if is_lines or _is_json_lines(start, keys):
                yield from _read_json_lines(text)
            elif suffix == ".json" or _JSON_START.match(start):
                yield from _read_json(text, keys)
            else:
                yield from _read_lines(name, text, keys)
    except (ValueError, RecursionError, csv.Error) as error:
        hints = {UnicodeError: ": save it as UTF-8", csv.Error: ": check its quotes"}
        hint = next((hint for kind, hint in hints.items() if isinstance(error, kind)), "")
        raise SettingsError(
            f"{name} is not a valid manifest ({error}{hint}): correct it; the same command then continues"
        ) from error


def reference_of(row: object, keys: Sequence[str] = IMAGE_KEYS) -> tuple[str, Mapping[str, Any]]:
    """Return a row's reference and task data; objects have it under the first of the keys that they have.

    Keys are compared without case, blanks and underscores, and may be paths such as `image.url`. A row that is a task
    of Label Studio has its data there. Raises `ValueError` for a row without a reference, and as `check_depth`.
    """
    if isinstance(row, ValueError):
        raise row
    if isinstance(row, str):
        return _valid_reference(row), {}
    check_depth(row)
    if not isinstance(row, dict):
        raise ValueError(f"the row is {kind_of(row)}: write a string or an object")  # noqa: TRY004
    data, name, value = _image_value(row, keys)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(
            f"its {name} is {'empty' if isinstance(value, str) else kind_of(value)}: write a path or a URL"
        )
    reference = _valid_reference(value)
    trimmed = {name: reference} if isinstance(data.get(name), str) else {}
    return reference, {**{str(field): content for field, content in data.items()}, **trimmed}


def _valid_reference(reference: str) -> str:
    """Return a reference without blanks around it. Raises `ValueError` for a malformed URL, and for another list."""
    reference = validate_uri(reference)
    if PurePosixPath(reference).suffix.lower() in _LIST_SUFFIXES and not is_web(reference):
        raise ValueError(f"it names the list {reference}, and lists in lists are not read: give that list as a source")
    return reference


def _image_value(row: Mapping[str, Any], keys: Sequence[str]) -> tuple[Mapping[str, Any], str, Any]:
    """Return the data of a row, the name of the field with the image, and its value."""
    documents: list[Mapping[str, Any]] = [row, *(data for data in [row.get("data")] if isinstance(data, dict))]
    for data, key in product(documents, keys):
        name = next((name for name in data if _normal(str(name)) == _normal(key)), key)
        value = _unwrapped(data[name] if name in data else value_at(key, data))
        if value is not None:
            return data, name, value
    raise ValueError(f"the row has no {' or '.join(keys)}: give the name of its image field with --image-key")


def _normal(name: str) -> str:
    """Return a name as it is compared.

    >>> _normal(" File_Name ")
    'filename'
    """
    return re.sub(r"[\s_-]", "", name).casefold()


def _unwrapped(value: Any) -> Any:
    """Return the reference within a list of one element or an object with one of the `IMAGE_KEYS`."""
    while isinstance(value, list | dict):
        members = value if isinstance(value, list) else [value[key] for key in IMAGE_KEYS if key in value]
        if not members or (isinstance(value, list) and len(value) > 1):
            return value
        value = members[0]
    return value


def _encoding(head: bytes) -> str:
    return "utf-16" if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"


def _is_json_lines(start: str, keys: Sequence[str]) -> bool:
    """Return whether a text begins with a line that is a JSON object or string, but no header of a table."""
    line, end, _ = start.lstrip().partition("\n")
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return False
    is_object = isinstance(value, dict) and bool(end)
    return is_object or (isinstance(value, str) and not _column([value], keys))


def _column(names: Sequence[str], keys: Sequence[str]) -> bool:
    """Return whether one of a table's columns holds the images."""
    return not {_normal(name) for name in names}.isdisjoint(map(_normal, keys))


def _read_json(text: io.TextIOWrapper, keys: Sequence[str]) -> Iterator[object]:
    """Yield the elements of JSON arrays without holding all of them, or those of documents such as COCO's."""
    buffer, position, is_in_array, is_empty = "", 0, False, True
    while True:
        position = _match_end(_JSON_SEPARATORS, buffer, position)
        if position < len(buffer) and buffer[position] == "]" and is_in_array:
            position, is_in_array = position + 1, False
            continue
        if position < len(buffer) and buffer[position] == "[" and not is_in_array:
            position, is_in_array, is_empty = position + 1, True, False
            continue
        try:
            row, position = _DECODER.raw_decode(buffer, position)
        except ValueError:
            buffer, position = buffer[position:], 0
            chunk = text.read(max(_CHUNK, len(buffer)))  # in growing chunks, as a row may be large
            if chunk:
                buffer += chunk
            elif buffer or is_in_array or is_empty:
                raise
            else:
                return
        else:
            is_empty = False
            yield from [row] if is_in_array else _rows_of_document(row, keys)


def _match_end(pattern: re.Pattern[str], text: str, position: int) -> int:
    match = pattern.match(text, position)
    return match.end() if match else position


def _rows_of_document(document: object, keys: Sequence[str]) -> Iterator[object]:
    """Yield the rows of a JSON value that is no list: itself, or those of the list in it."""
    if not isinstance(document, dict):
        yield document
        return
    rows = next((document[name] for name in _LISTS_OF_DOCUMENTS if isinstance(document.get(name), list)), None)
    try:
        _image_value(document, keys)
    except ValueError:
        if rows is None:
            raise
        yield from rows
    else:
        yield document


def _read_json_lines(text: io.TextIOWrapper) -> Iterator[object]:
    for line in text:
        if line.strip():
            try:
                yield _DECODER.decode(line)
            except (ValueError, RecursionError) as error:
                yield ValueError(f"the row is not valid JSON ({error}): correct it")


def _read_lines(name: str, text: io.TextIOWrapper, keys: Sequence[str]) -> Iterator[object]:
    """Yield the rows of a table whose first line names the column of the images; without such a line, all lines."""
    first = next((line for line in text if line.strip()), "")
    given = _DELIMITER_LINE.fullmatch(first)
    first = next(text, "") if given else first
    headers = {delimiter: _cells(first, delimiter) for delimiter in (given[1] if given else _DELIMITERS)}
    delimiter = next((delimiter for delimiter, names in headers.items() if _column(names, keys)), None)
    if delimiter is not None:
        repeated = [column for column, count in Counter(headers[delimiter]).items() if count > 1]
        if image_columns := [column for column in repeated if _column([column], keys)]:
            raise SettingsError(f"{name} has several columns {image_columns[0]!r}: rename all but one")
        yield from _read_table(text, headers[delimiter], delimiter)
        return
    is_table = PurePosixPath(name).suffix.lower() in (".csv", ".tsv") and max(map(len, headers.values())) > 1
    if first and (is_table or len(keys) == 1):
        raise SettingsError(
            f"{name} has no column {' or '.join(keys)}; its first line is {first.strip()!r:.80}: name the image's "
            "column there, or with --image-key"
        )
    yield from (line.strip() for line in chain([first], text) if line.strip())


def _cells(line: str, delimiter: str) -> list[str]:
    return [cell.strip() for row in csv.reader([line], delimiter=delimiter, skipinitialspace=True) for cell in row]


def _read_table(text: io.TextIOWrapper, header: Sequence[str], delimiter: str) -> Iterator[object]:
    for cells in csv.reader(text, delimiter=delimiter, skipinitialspace=True, strict=True):
        if len(cells) > len(header):
            yield ValueError(
                f"the row has {len(cells)} cells, the header {len(header)}: put cells with a {delimiter!r} in quotes"
            )
        elif any(cells):
            yield {column: cell.strip() for column, cell in zip(header, cells, strict=False)}


def _read_parquet(file: BinaryFile) -> Iterator[object]:
    try:
        from pyarrow.parquet import ParquetFile  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise SettingsError("Parquet cannot be read here: install walkcut[bulk]") from error
    for batch in ParquetFile(file).iter_batches(batch_size=_BATCH_ROWS):
        for row in batch.to_pylist():
            yield _DECODER.decode(json.dumps(row, default=str))
