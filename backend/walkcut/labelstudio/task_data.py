"""Variables in a tag's attributes, such as `$image.url`, resolved from a task's data as Label Studio's editor does."""

import re
from collections.abc import Mapping
from typing import Any, Final

_VARIABLE: Final = re.compile(r"\$[\w\[\].{}]+", re.ASCII)
_KEY: Final = re.compile(r"\[(\d+)\]|[^.\[\]]+")


def variables(text: str) -> list[str]:
    """Return the paths of a text's variables, in order.

    >>> variables("https://host/$folder/$image.url"), variables("$pages[0]"), variables("photo.jpg")
    (['folder', 'image.url'], ['pages[0]'], [])
    """
    return [variable[1:] for variable in _VARIABLE.findall(text)]


def without_variables(text: str) -> str:
    """Return the part of a text that is the same for all tasks."""
    return _VARIABLE.sub("", text)


def resolve(text: str, data: Mapping[str, Any]) -> object:
    """Return a text with the data's values in place of its variables, or the value itself of a single variable.

    A text with a variable that has no text or number as its value is `None`.
    """
    if _VARIABLE.fullmatch(text):
        return value_at(text[1:], data)
    values = [value_at(path, data) for path in variables(text)]
    if not all(isinstance(value, str | int | float) for value in values):
        return None
    texts = iter(map(_as_text, values))
    return _VARIABLE.sub(lambda _match: next(texts), text)


def value_at(path: str, data: Mapping[str, Any]) -> object:
    """Return the value at a path of keys and indexes, `None` if it is missing; a key spelt as the path comes first.

    >>> value_at("pages[1].url", {"pages": [{}, {"url": "b.jpg"}]}), value_at("image.url", {"image.url": "a.jpg"})
    ('b.jpg', 'a.jpg')
    """
    if path in data:
        return data[path]
    value: object = data
    for key in (match[1] or match[0] for match in _KEY.finditer(path)):
        if isinstance(value, Mapping):
            value = value.get(key)
        elif isinstance(value, list) and key.isdecimal() and int(key[:9]) < len(value):
            value = value[int(key[:9])]
        else:
            return None
    return value


def with_value(data: Mapping[str, Any], path: str, value: object) -> dict[str, Any]:
    """Return data with a value at a path, whose parts are made where they are missing.

    >>> with_value({"id": 1}, "images[0].url", "a.jpg")
    {'id': 1, 'images': [{'url': 'a.jpg'}]}
    """
    if path in data:
        return {**data, path: value}
    matches = list(_KEY.finditer(path))
    root: dict[str, Any] = dict(data)
    part: Any = root
    for match, following in zip(matches, [*matches[1:], None], strict=True):
        key: Any = match[0]
        if isinstance(part, list):
            key = int(match[1])
            part += [None] * (key + 1 - len(part))
        current = part[key] if isinstance(part, list) else part.get(key)
        if following is None:
            part[key] = value
        elif following[1] is None:
            part[key] = dict(current) if isinstance(current, Mapping) else {}
        else:
            part[key] = list(current) if isinstance(current, list) else []
        part = part[key]
    return root


def describe(value: object) -> str:
    """Return what kind of value it is, without quoting it: it may hold a password or a signature.

    >>> describe(None), describe(["a", "b"]), describe({"url": "a"}), describe(" ")
    ('missing', 'a list of 2', 'an object', 'empty')
    """
    match value:
        case None:
            return "missing"
        case str():
            return "a text" if value.strip() else "empty"
        case list():
            return f"a list of {len(value)}"
        case Mapping():
            return "an object"
        case _:
            return f"of type {type(value).__name__}"


def _as_text(value: object) -> str:
    """Return a text or number as JavaScript writes it: 3.0 as 3, True as true."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
