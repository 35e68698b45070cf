"""JSON from outside."""

import json
from typing import Any, Final

from walkcut.errors import RequestError

_DEEPEST: Final = 100
_NO_OBJECT: Final = "the request's body must be a JSON object, as Label Studio sends it"
_TOO_DEEP: Final = f"lists and objects lie more than {_DEEPEST} deep in each other: send less"


def read_object(text: bytes) -> dict[str, Any]:
    """The JSON object that a request's body holds. Raises `RequestError` for anything else."""
    document = read_json(text)
    if not isinstance(document, dict):
        raise RequestError(_NO_OBJECT)
    return document


def read_json(text: bytes | str) -> object:
    """What a JSON text holds; of several members with one name the last counts, NaN and infinities are numbers.

    Raises `RequestError` for what is no JSON, and as `check_depth`.
    """
    try:
        document = json.loads(text)
    except RecursionError as error:
        raise RequestError(_TOO_DEEP) from error
    except ValueError as error:
        raise RequestError(f"{_NO_OBJECT}: {error}") from error
    check_depth(document)
    return document


def check_depth(document: object) -> None:
    """Raises `RequestError` for lists and objects more than 100 deep, on which whatever goes into them later could
    fail."""
    level = [document]
    for _ in range(_DEEPEST + 1):
        level = [inner for outer in level for inner in _nested(outer)]
        if not level:
            return
    raise RequestError(_TOO_DEEP)


def _nested(outer: object) -> list[Any]:
    """The lists and objects right within a list or an object."""
    members = outer.values() if isinstance(outer, dict) else outer if isinstance(outer, list) else ()
    return [member for member in members if isinstance(member, dict | list)]
