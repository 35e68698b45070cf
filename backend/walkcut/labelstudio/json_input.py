"""Untrusted JSON, limited in depth."""

import json
from typing import Any, Final

from walkcut.errors import RequestError

_MAX_DEPTH: Final = 100
_NOT_AN_OBJECT: Final = "the request's body must be a JSON object, as Label Studio sends it"
_TOO_DEEP: Final = f"lists and objects are nested more than {_MAX_DEPTH} deep: send a flatter document"


def read_object(text: bytes) -> dict[str, Any]:
    """Return the JSON object of a request's body. Raises `RequestError` for anything else."""
    document = read_json(text)
    if not isinstance(document, dict):
        raise RequestError(_NOT_AN_OBJECT)
    return document


def read_json(text: bytes | str) -> object:
    """Return the value of a JSON text; the last of duplicate names counts, and NaN and infinities are numbers.

    Raises `RequestError` for anything but JSON, and for values nested too deep (`check_depth`).
    """
    try:
        document = json.loads(text)
    except RecursionError as error:
        raise RequestError(_TOO_DEEP) from error
    except ValueError as error:
        reason = str(error).partition(";")[0]  # what follows is about Python
        raise RequestError(f"{_NOT_AN_OBJECT}: {reason}") from error
    check_depth(document)
    return document


def check_depth(document: object) -> None:
    """Raise `RequestError` for lists and objects nested more than 100 deep, at which later recursion could fail."""
    level: list[Any] = [[document]]
    for _ in range(_MAX_DEPTH + 2):
        members = [member for outer in level for member in (outer.values() if isinstance(outer, dict) else outer)]
        level = [member for member in members if isinstance(member, dict | list)]
        if not level:
            return
    raise RequestError(_TOO_DEEP)
