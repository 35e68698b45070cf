"""References in messages and logs, without the parts that may be secret."""

import re
import reprlib
from typing import Final

_MAX_LENGTH: Final = 120  # characters
_PASSWORD: Final = re.compile(r"(^|//)[^/?#]*@")
_QUERY: Final = re.compile(r"([?#]).*", re.DOTALL)
_PATH: Final = re.compile(r"/(?!/)")  # of Label Studio, whose query names a file and signs nothing


def redact(reference: object) -> str:
    """Quote a reference without a data: URL's data, a URL's query (it may be a signature) or its password.

    >>> redact("https://me:secret@bucket.example/a.jpg?X-Amz-Signature=1f2e")
    "'https://bucket.example/a.jpg?…'"
    """
    if not isinstance(reference, str):
        return reprlib.repr(reference)
    if is_data_url(reference):
        header = reference.partition(",")[0]
        return f"'{header[:40]},…' ({len(reference)} characters)"
    redacted = _PASSWORD.sub(r"\1", reference, count=1)
    if not _PATH.match(redacted):
        redacted = _QUERY.sub(r"\1…", redacted)
    half = _MAX_LENGTH // 2
    return repr(redacted if len(redacted) <= _MAX_LENGTH else f"{redacted[:half]}…{redacted[-half:]}")


def is_data_url(reference: str) -> bool:
    """Return whether a reference holds its image itself (RFC 2397)."""
    return reference[:5].lower() == "data:"
