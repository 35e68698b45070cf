"""Values from outside in messages and logs, without the parts that may be secret."""

import re
from typing import Final

_MAX_LENGTH: Final = 120  # characters
_PREFIX: Final = re.compile(r"[a-z][a-z0-9+.-]*:/+|/{2,}", re.IGNORECASE)
_NAMED_FILE: Final = re.compile(r"(?:/+[^/?#@;]+)*/*\?(?:d|filepath)=")  # Label Studio's, whose query signs nothing
_QUERY: Final = re.compile(r"([?#;]|%3f|%23|&[^&/=]*=).*", re.IGNORECASE | re.DOTALL)
_AT: Final = re.compile(r"@|%40")
_LAST_AT: Final = re.compile(r".*(?P<at>@|%40)", re.DOTALL)
_AUTHORITY: Final = re.compile(
    r"(?:\[[0-9a-f:.]*\]|[^:\[\]/]*)(?::\d{0,5})?(?:/.*)?|[a-z]:[\\/].*", re.IGNORECASE | re.DOTALL
)
_KINDS: Final[dict[type, str]] = {
    type(None): "null",
    str: "text",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    dict: "an object",
    list: "a list",
}


def redact(reference: object) -> str:
    """Quote a reference without anything that may be a password, a signature or data; other values by their kind.

    A URL may hold secrets in its query, its user information, and, if it is malformed, in any part before an @ or
    behind a colon.

    >>> redact("https://me:secret@bucket.example/a.jpg?X-Amz-Signature=1f2e")
    "'https://…@bucket.example/a.jpg?…'"
    """
    if not isinstance(reference, str):
        return f"({kind_of(reference)})"
    redacted = redacted_text(reference)
    half = _MAX_LENGTH // 2
    return repr(redacted if len(redacted) <= _MAX_LENGTH else f"{redacted[:half]}…{redacted[-half:]}")


def redacted_text(reference: str) -> str:
    """Return a reference as `redact` does, in full length and without quotes."""
    text = reference.strip()
    if is_data_url(text):
        return f"data:… ({len(text)} characters)"
    prefix = _NAMED_FILE.match(text) or _PREFIX.match(text)
    start = prefix.end() if prefix else 0
    query = _QUERY.search(text, start)
    body, tail = (text[start : query.start()], query[0][len(query[1]) :]) if query else (text[start:], "")
    if _AT.search(tail):  # a password may hold a question mark
        return f"{text[:start]}…"
    return text[:start] + _without_user(body, is_url=start > 0) + (f"{query[1][:1]}…" if query else "")


def _without_user(body: str, *, is_url: bool) -> str:
    """Hide what lies before the last @, unless it is in the name of a file, and a port that is no number."""
    first = body.partition("/")[0]
    if last := _LAST_AT.match(body if is_url or ":" in first else first):
        return f"…@{body[last.end() :]}"
    last = _LAST_AT.match(body)
    colon = body.find(":", 0, last.start("at")) if last else -1
    if last and colon >= 0:  # below a folder that a relative reference was put in
        body = f"{body[: body.rfind('/', 0, colon) + 1]}…@{body[last.end() :]}"
    return body if _AUTHORITY.fullmatch(body) else f"{re.split(r'[:[]', body)[0]}…"


def kind_of(value: object) -> str:
    """Return what a value is, without any of it.

    >>> kind_of(["https://bucket.example/a.jpg"]), kind_of(None)
    ('a list', 'null')
    """
    return next((name for kind, name in _KINDS.items() if isinstance(value, kind)), "an unknown value")


def is_data_url(reference: str) -> bool:
    """Return whether a reference holds its image itself (RFC 2397)."""
    return reference[:5].lower() == "data:"
