"""Limits of a fetch, the hosts that images may come from, and the access to Label Studio."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import unquote, urlsplit

from walkcut.errors import ImageFetchError, SettingsError
from walkcut.images.redact import redact

_PORTS: Final = {"http": 80, "https": 443}
_NO_HOST: Final = re.compile(r"[\s%<>\"'{}|\\^`&=,;!*()$+~]")
_FILE_PATHS: Final = ("/data/", "/storage-data/", "/tasks/", "/projects/")  # where Label Studio serves files


class Origin(NamedTuple):
    """Scheme, host and port of a web server (RFC 6454): a token for one origin is sent to no other."""

    scheme: str
    host: str
    port: int


class AddressError(ValueError):
    """A URL that no image can be fetched from; the message quotes nothing of it."""


def parse_origin(url: str) -> Origin:
    """Return scheme, host and port of an http(s) URL.

    Raises `AddressError` for another scheme, no or an impossible host, a user name or a password, and another
    `ValueError`, whose message may quote secrets, for what Python cannot parse.
    """
    parts = urlsplit(url)
    if parts.scheme not in _PORTS:
        raise AddressError("its scheme is neither http nor https")
    if "@" in parts.netloc:
        raise AddressError("user names and passwords in URLs are not used")
    if not parts.hostname:
        raise AddressError("it names no host")
    if not parts.hostname.isprintable() or _NO_HOST.search(parts.hostname):
        raise AddressError("its host has characters that no host's name has")
    return Origin(parts.scheme, parts.hostname, _PORTS[parts.scheme] if parts.port is None else parts.port)


def redacted_reason(error: ValueError) -> str:
    """Return why a URL cannot be parsed, but not in Python's own words, which quote passwords."""
    return str(error) if isinstance(error, AddressError) else "its host or its port is malformed"


@dataclass(frozen=True)
class FetchPolicy:
    """Limits of one fetch, and the hosts that images may come from.

    Private addresses are refused, except those of Label Studio and of `allowed_hosts` (host or host:port), unless
    `allow_private_hosts`; with `only_allowed_hosts` all other hosts are refused. Local files are read from disk below
    `local_files_root`, or from Label Studio if it is None. `ca_bundle` is a PEM file of trusted certificates (None:
    those of certifi). Times are in seconds and do not include the system's resolver.
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

    def allows(self, origin: Origin) -> bool:
        """Return whether an origin is one of the `allowed_hosts`."""
        allowed = {host.lower() for host in self.allowed_hosts}
        return origin.host in allowed or f"{origin.host}:{origin.port}" in allowed

    def check_bytes(self, count: int) -> None:
        """Raise `ImageFetchError` if an image has more than `max_bytes`."""
        if count > self.max_bytes:
            raise ImageFetchError(
                f"it has more than {self.max_bytes} bytes. Scale it down, or raise WALKCUT_MAX_BYTES."
            )


@dataclass(frozen=True)
class LabelStudioAccess:
    """Label Studio's address, and its legacy or personal access token ("" for none).

    `url` may have a sub-path. `aliases` are other URLs of the same Label Studio in task data, such as the `hostname`
    that it sends to /setup; no request is sent to them.
    """

    url: str
    token: str = field(default="", repr=False)
    aliases: tuple[str, ...] = ()

    @property
    def address(self) -> tuple[Origin, str]:
        """Scheme, host, port and sub-path of the URL, alike for all spellings of it."""
        return parse_origin(self.url), urlsplit(self.url).path.rstrip("/")

    def serves_files_at(self, url: str) -> bool:
        """Return whether Label Studio serves files at a URL: a task must not send the token to the rest of its API."""
        base, path = urlsplit(self.url).path.rstrip("/"), unquote(urlsplit(url).path)
        below = path.removeprefix(base) if path.startswith(base) else ""
        is_same_server = parse_origin(url) == parse_origin(self.url)
        return is_same_server and below.startswith(_FILE_PATHS) and ".." not in re.split(r"[/\\]", path)

    def __post_init__(self) -> None:
        for url in (self.url, *self.aliases):
            try:
                parse_origin(url)
                if "?" in url or "#" in url:
                    raise AddressError("it has a query or a fragment")
            except ValueError as error:
                raise SettingsError(
                    f"{redact(url)} is not a Label Studio address: {redacted_reason(error)}. "
                    "Set LABEL_STUDIO_URL to one like http://label-studio:8080."
                ) from error
        if self.token and not is_token(self.token):
            raise SettingsError(
                "Label Studio's token holds blanks or other characters that no token has. "
                "Copy it to LABEL_STUDIO_API_KEY again."
            )


def is_token(text: str) -> bool:
    """Return whether a text can be part of an Authorization header without ending it."""
    return re.fullmatch(r"[!-~]+", text) is not None
