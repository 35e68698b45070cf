"""References to images, as Label Studio's task data holds them, and those that need no network to follow."""

import base64
import binascii
import string
from typing import Final
from urllib.parse import parse_qs, unquote_to_bytes, urlsplit

from walkcut.errors import ImageFetchError
from walkcut.images.policy import FetchPolicy, LabelStudioAccess, origin
from walkcut.images.redact import is_data_url, redact

ACCEPTED: Final = (
    "Accepted are http(s):// and data: URLs, Label Studio's own /data/upload/… and /data/local-files/?d=…, "
    "and s3://, gs:// and azure-blob:// of a storage connected to Label Studio."
)
_LOCAL_FILES: Final = "/data/local-files"
_LABEL_STUDIO_PATHS: Final = ("/data/upload/", f"{_LOCAL_FILES}/", f"{_LOCAL_FILES}?", "/storage-data/uploaded/")
_CLOUD_SCHEMES: Final = ("s3", "gs", "azure-blob")
_MOST_FIELDS: Final = 8  # of a query
_PIECE: Final = 65536  # characters
_MOST_CHARACTERS_A_BYTE: Final = 4  # base64 of which every character is percent-encoded


def read_data_url(reference: str, policy: FetchPolicy) -> bytes | None:
    """The bytes that a data: URL (RFC 2397) holds, base64 or percent-encoded; None for any other reference.

    Raises:
        ImageFetchError: no comma, broken base64, or too many bytes.
    """
    if not is_data_url(reference):
        return None
    header, comma, payload = reference.partition(",")
    if not comma:
        raise ImageFetchError("a data: URL has a comma before its data. Import the task anew.")
    policy.check_bytes(len(payload) // _MOST_CHARACTERS_A_BYTE)
    data = _unquoted(payload)
    if header.lower().endswith(";base64"):
        text = data.translate(None, string.whitespace.encode())
        try:
            data = base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
        except binascii.Error as error:
            raise ImageFetchError(f"its base64 is broken ({error}). Import the task anew.") from error
    policy.check_bytes(len(data))
    return data


def _unquoted(text: str) -> bytes:
    """Percent-encoded text as bytes, piece by piece: at once, each escape would take a hundred bytes of memory."""
    pieces, at = [], 0
    while at < len(text):
        end = at + _PIECE
        escape = text.rfind("%", end - 2, end)  # not to be cut in two
        end = end if escape < 0 else escape
        pieces.append(unquote_to_bytes(text[at:end]))
        at = end
    return b"".join(pieces)


def read_local_file(path: str | None, policy: FetchPolicy) -> bytes | None:
    """Read the file below the root that `/data/local-files/?d=…` names; None for other paths, or without a root.

    Raises:
        ImageFetchError: no such file, or one outside the root, by `..`, as an absolute path or through a link.
    """
    root = policy.local_files_root
    if root is None or path is None or urlsplit(path).path.rstrip("/") != _LOCAL_FILES:
        return None
    name = parse_qs(urlsplit(path).query, max_num_fields=_MOST_FIELDS).get("d", [""])[0]
    shown = redact(name)
    remedy = "Mount Label Studio's folder there, or unset WALKCUT_LOCAL_FILES_ROOT to fetch from Label Studio."
    try:
        file = (root / name).resolve(strict=True)
        if not file.is_relative_to(root.resolve()):
            raise ImageFetchError(f"{shown} lies outside of the folder of local files, {root}. Move it there.")
        if not file.is_file():
            raise ImageFetchError(f"{shown} in {root} is no file. {remedy}")
        with file.open("rb") as opened:
            data = opened.read(policy.max_bytes + 1)  # whatever its size is said to be
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: a loop of links, before Python 3.13
        reason = error.strerror if isinstance(error, OSError) else error
        raise ImageFetchError(f"{shown} cannot be read from {root} ({reason}). {remedy}") from error
    policy.check_bytes(len(data))
    return data


def label_studio_path(reference: str, access: LabelStudioAccess | None) -> str | None:
    """Path and query, below Label Studio's URL, of what a reference names; None where it names another place.

    So `/data/upload/…` with or without Label Studio's sub-path, and any full URL below its own or an alias.
    """
    parts = urlsplit(reference)
    bases = (access.url, *access.aliases) if access else ()
    wanted: tuple[str, ...] = _LABEL_STUDIO_PATHS
    if parts.scheme in ("http", "https"):
        bases, wanted = tuple(base for base in bases if origin(base) == origin(reference)), ("/",)
    elif parts.scheme or parts.netloc:
        return None
    else:
        bases += ("",)
    full = parts.path + ("?" + parts.query if parts.query else "")
    sub_paths = (urlsplit(base).path.rstrip("/") for base in bases)
    below = (full.removeprefix(sub_path) for sub_path in sub_paths if full.startswith(sub_path))
    return next((path for path in below if path.startswith(wanted)), None)


def web_address(reference: str, path: str | None, task_id: int | None, access: LabelStudioAccess | None) -> str:
    """The URL to ask for a reference, given its `label_studio_path`.

    Raises:
        ImageFetchError: a reference of a kind that is not accepted, or Label Studio or the task is unknown.
    """
    scheme = urlsplit(reference).scheme
    if path is None and scheme in ("http", "https"):
        return reference
    if path is None and scheme not in _CLOUD_SCHEMES:
        raise ImageFetchError(f"this is no reference that walkcut follows. {ACCEPTED}")
    if access is None:
        raise ImageFetchError("only Label Studio can give it, and nobody said where that is. Set LABEL_STUDIO_URL.")
    if path is None:
        if task_id is None:
            raise ImageFetchError("Label Studio gives files of cloud storages for a task only. Send the task's id.")
        uri = base64.urlsafe_b64encode(reference.encode()).decode()
        path = f"/tasks/{task_id}/presign/?fileuri={uri}"
    return access.url.rstrip("/") + path
