"""How a reference is named in messages and logs: without what may be a secret."""

import re
import reprlib
from typing import Final

_SHOWN_CHARACTERS: Final = 120
_PASSWORD: Final = re.compile(r"(^|//)[^/?#]*@")
_SIGNATURE: Final = re.compile(r"([?#]).*", re.DOTALL)
_PATH: Final = re.compile(r"/(?!/)")  # of Label Studio's own, whose query names a file


def redact(reference: object) -> str:
    """Name a reference in a message, without a data: URL's data, a URL's query (maybe a signature) or its password."""
    if not isinstance(reference, str):
        return reprlib.repr(reference)
    if is_data_url(reference):
        header = reference.partition(",")[0]
        return f"'{header[:40]},…' ({len(reference)} characters)"
    shown = _PASSWORD.sub(r"\1", reference, count=1)
    if not _PATH.match(shown):
        shown = _SIGNATURE.sub(r"\1…", shown)
    half = _SHOWN_CHARACTERS // 2
    return repr(shown if len(shown) <= _SHOWN_CHARACTERS else f"{shown[:half]}…{shown[-half:]}")


def is_data_url(reference: str) -> bool:
    """Whether a reference holds its image itself (RFC 2397)."""
    return reference[:5].lower() == "data:"
