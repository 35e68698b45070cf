"""Image references in Label Studio's task data: parsing, and reading those that need no network."""

import base64
import binascii
import re
import string
from typing import Final
from urllib.parse import parse_qs, unquote_to_bytes, urlsplit

from walkcut.errors import ImageFetchError
from walkcut.images.policy import FetchPolicy, LabelStudioAccess, parse_origin
from walkcut.images.redact import is_data_url, redact

ACCEPTED: Final = (
    "Accepted are http(s):// and data: URLs, Label Studio's own /data/upload/… and /data/local-files/?d=…, "
    "and s3://, gs:// and azure-blob:// of a storage connected to Label Studio."
)
_LOCAL_FILES: Final = "/data/local-files"
_FILE_PATH: Final = re.compile(  # behind any sub-path: of Label Studio, or of a proxy that removes it
    rf"(?:/[^/?]+)*?/*(/data/upload/.|{_LOCAL_FILES}/?\?|/storage-data/uploaded/?\?"
    r"|/(?:tasks|projects)/\d+/(?:presign|resolve)/?\?)"
)
_BLANKS: Final = "".join(map(chr, range(33)))  # around a URL, which browsers remove
_CLOUD_SCHEMES: Final = ("s3", "gs", "azure-blob")
_MAX_QUERY_FIELDS: Final = 8
_CHUNK: Final = 65536  # characters
_MAX_CHARACTERS_PER_BYTE: Final = 4  # base64 of which every character is percent-encoded


def read_data_url(reference: str, policy: FetchPolicy) -> bytes | None:
    """Return the bytes of a data: URL (RFC 2397), base64 or percent-encoded; None for any other reference.

    Raises `ImageFetchError` for a missing comma, broken base64 or too many bytes.
    """
    if not is_data_url(reference):
        return None
    header, comma, payload = reference.partition(",")
    if not comma:
        raise ImageFetchError("a data: URL needs a comma before its data. Import the task again.")
    policy.check_bytes(len(payload) // _MAX_CHARACTERS_PER_BYTE)
    data = _unquoted(payload)
    if header.lower().endswith(";base64"):
        text = data.translate(None, string.whitespace.encode())
        try:
            data = base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
        except binascii.Error as error:
            raise ImageFetchError(f"its base64 is broken ({error}). Import the task again.") from error
    policy.check_bytes(len(data))
    return data


def _unquoted(text: str) -> bytes:
    """Decode percent-encoded text in chunks: at once, each escape would take a hundred bytes of memory."""
    chunks, start = [], 0
    while start < len(text):
        end = start + _CHUNK
        escape = text.rfind("%", end - 2, end)  # must not be cut in two
        end = end if escape < 0 else escape
        chunks.append(unquote_to_bytes(text[start:end]))
        start = end
    return b"".join(chunks)


def read_local_file(path: str | None, policy: FetchPolicy) -> bytes | None:
    """Read the file of `/data/local-files/?d=…` below the root; None for other paths, or without a root.

    Raises `ImageFetchError` if there is none, or it is outside the root: by `..`, an absolute path or a symbolic link.
    """
    root = policy.local_files_root
    if root is None or path is None or urlsplit(path).path.rstrip("/") != _LOCAL_FILES:
        return None
    name = parse_qs(urlsplit(path).query, max_num_fields=_MAX_QUERY_FIELDS).get("d", [""])[0]
    quoted = redact(name)
    remedy = "Mount Label Studio's folder there, or unset WALKCUT_LOCAL_FILES_ROOT to fetch from Label Studio."
    try:
        file = (root / name).resolve(strict=True)
        if not file.is_relative_to(root.resolve()):
            raise ImageFetchError(
                f"{quoted} lies outside of the folder of local files, {root}. Move it into that folder."
            )
        if not file.is_file():
            raise ImageFetchError(f"{quoted} in {root} is not a file. {remedy}")
        with file.open("rb") as opened:
            data = opened.read(policy.max_bytes + 1)  # a file may be larger than its reported size
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: a loop of links before Python 3.13
        reason = error.strerror if isinstance(error, OSError) else error
        raise ImageFetchError(f"{quoted} cannot be read from {root} ({reason}). {remedy}") from error
    policy.check_bytes(len(data))
    return data


def trimmed(reference: str) -> str:
    """Return a reference without the blanks and control characters around it, as browsers read it."""
    return reference.strip(_BLANKS)


def label_studio_path(reference: str, access: LabelStudioAccess | None) -> str | None:
    """Return path and query of a reference below Label Studio's URL; None for a reference elsewhere.

    That is `/data/upload/…` and the like behind any sub-path, and URLs below Label Studio's own or an alias.
    """
    if not re.match(r"https?:", reference, re.IGNORECASE):
        file = _FILE_PATH.match(reference)
        return reference[file.start(1) :] if file else None
    parts, origin = urlsplit(reference), parse_origin(reference)
    full = parts.path + ("?" + parts.query if parts.query else "")
    bases = (access.url, *access.aliases) if access else ()
    sub_paths = [urlsplit(base).path.rstrip("/") for base in bases if parse_origin(base) == origin]
    below = next((full.removeprefix(sub_path) for sub_path in sub_paths if full.startswith(f"{sub_path}/")), None)
    file = _FILE_PATH.match(below or "")
    return below[file.start(1) :] if below and file else below


def web_address(reference: str, path: str | None, task_id: int | None, access: LabelStudioAccess | None) -> str:
    """Return the URL of a reference with the given `label_studio_path`.

    Raises `ImageFetchError` for one of no accepted kind, or that needs a Label Studio or a task that is unknown.
    """
    scheme = urlsplit(reference).scheme
    if path is None and scheme in ("http", "https"):
        return reference
    if path is None and scheme not in _CLOUD_SCHEMES:
        raise ImageFetchError(f"walkcut does not support references of this kind. {ACCEPTED}")
    if access is None:
        raise ImageFetchError("only Label Studio serves it, and its address is not known. Set LABEL_STUDIO_URL.")
    if path is None:
        if task_id is None:
            raise ImageFetchError("Label Studio serves files of cloud storages for a task only. Send the task's id.")
        uri = base64.urlsafe_b64encode(reference.encode()).decode()
        path = f"/tasks/{task_id}/presign/?fileuri={uri}"
    return access.url.rstrip("/") + path
