"""Where images may be fetched from, at what cost, and how Label Studio is reached: plain values."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from walkcut.errors import ImageFetchError, SettingsError
from walkcut.images.redact import redact

_PORTS = {"http": 80, "https": 443}
_FILES = ("/data/", "/storage-data/", "/tasks/", "/projects/")  # where Label Studio gives files


class Origin(NamedTuple):
    """What tells one web server from another (RFC 6454): a token for one is shown to no other."""

    scheme: str
    host: str
    port: int


def origin(url: str) -> Origin:
    """Scheme, host and port of an http(s) URL.

    Raises:
        ValueError: another scheme, no host or none that can be shown, a port out of range, or a user name or password.
    """
    parts = urlsplit(url)
    if parts.scheme not in _PORTS:
        raise ValueError(f"scheme {parts.scheme!r} is neither http nor https")
    if "@" in parts.netloc:
        raise ValueError("user names and passwords in URLs are not used")
    if not parts.hostname:
        raise ValueError("it names no host")
    if not parts.hostname.isprintable():
        raise ValueError("its host has characters that no host has")
    return Origin(parts.scheme, parts.hostname, _PORTS[parts.scheme] if parts.port is None else parts.port)


def redacted_reason(error: ValueError) -> str:
    """Why a URL cannot be read, for a message: Python's own reasons quote user name and password."""
    return str(error).rpartition("@")[2]


@dataclass(frozen=True)
class FetchPolicy:
    """Limits of one fetch, and the hosts that images may come from.

    Addresses that are not public are refused, save those of Label Studio and of `allowed_hosts` (host or host:port),
    unless `allow_private_hosts`; with `only_allowed_hosts` all other hosts are refused. Local files are read from disk
    below `local_files_root`, from Label Studio where it is None. `ca_bundle` is a PEM file of trusted certificates
    (None: those of certifi). Times are in seconds; to look up a name takes what the system's resolver takes.
    """

    max_bytes: int = 100_000_000
    timeout: float = 20.0
    connect_timeout: float = 5.0
    max_redirects: int = 5
    allow_private_hosts: bool = False
    allowed_hosts: frozenset[str] = frozenset()
    only_allowed_hosts: bool = False
    local_files_root: Path | None = None
    ca_bundle: Path | None = None

    def names(self, place: Origin) -> bool:
        """Whether a place is one of the `allowed_hosts`."""
        allowed = {host.lower() for host in self.allowed_hosts}
        return place.host in allowed or f"{place.host}:{place.port}" in allowed

    def check_bytes(self, count: int) -> None:
        """Raise `ImageFetchError` where an image has more bytes than it may have."""
        if count > self.max_bytes:
            raise ImageFetchError(
                f"it has more than {self.max_bytes} bytes. Scale it down, or raise WALKCUT_MAX_BYTES."
            )


@dataclass(frozen=True)
class LabelStudioAccess:
    """Where Label Studio is and the token to show there, legacy or personal access token; "" for none.

    `url` may have a sub-path. `aliases` are further URLs that task data may hold for the same Label Studio, such as
    the `hostname` that it sends to /setup; they are never asked themselves.
    """

    url: str
    token: str = field(default="", repr=False)
    aliases: tuple[str, ...] = ()

    def serves_files_at(self, url: str) -> bool:
        """Whether Label Studio gives files at a URL: what else it does for its token, no task may make walkcut ask."""
        base, path = urlsplit(self.url).path.rstrip("/"), unquote(urlsplit(url).path)
        below = path.removeprefix(base) if path.startswith(base) else ""
        return origin(url) == origin(self.url) and below.startswith(_FILES) and ".." not in path.split("/")

    def __post_init__(self) -> None:
        for url in (self.url, *self.aliases):
            _check_label_studio_url(url)
        if self.token and not is_token(self.token):
            raise SettingsError(
                "Label Studio's token holds blanks or other characters that no token has. "
                "Copy it to LABEL_STUDIO_API_KEY again."
            )


def _check_label_studio_url(url: str) -> None:
    try:
        origin(url)
    except ValueError as error:
        raise SettingsError(
            f"{redact(url)} is no address of a Label Studio: {redacted_reason(error)}. "
            "Set LABEL_STUDIO_URL to one like http://label-studio:8080."
        ) from error


def is_token(text: str) -> bool:
    """Tell whether a text can stand in an Authorization header, and not end it."""
    return re.fullmatch(r"[!-~]+", text) is not None
