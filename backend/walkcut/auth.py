"""Who may call the backend: credentials, compared in constant time, and no page in a browser."""

import base64
import binascii
import hashlib
import hmac
import ipaddress
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Credentials:
    """What callers must show: user name and password, as Label Studio can, or a bearer token; empty ones do not count.

    With neither everybody is let in.
    """

    user: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)

    @property
    def required(self) -> bool:
        """Whether callers must show anything."""
        return bool(self.user or self.password or self.token)

    @property
    def header(self) -> str:
        """What to show as Authorization header; empty where nothing is asked for."""
        if self.user or self.password:
            return f"Basic {base64.b64encode(f'{self.user}:{self.password}'.encode()).decode()}"
        return f"Bearer {self.token}" if self.token else ""

    def accepts(self, authorization: str) -> bool:
        """Whether an Authorization header (RFC 7617, RFC 6750), empty for none, holds what is asked for."""
        if not self.required:
            return True
        scheme, _, shown = authorization.partition(" ")
        match scheme.lower():
            case "basic" if self.user or self.password:
                return _equal(_decoded(shown), f"{self.user}:{self.password}")
            case "bearer" if self.token:
                return _equal(shown.strip(" ").encode("latin-1", "replace"), self.token)  # as WSGI decodes it
        return False


def is_browser_request(origin: str | None, fetch_site: str | None) -> bool:
    """Tell by the headers Origin and Sec-Fetch-Site whether a script of some page made a request: browsers send the one
    with whatever changes anything (Fetch standard, 3.2 and 2.2.2), and the other with everything.

    Label Studio and scripts are no pages. A page could otherwise reach a backend that listens to its own machine alone,
    since the browser runs there.
    """
    return origin is not None or fetch_site in ("cross-site", "same-site")


def is_loopback(host: str) -> bool:
    """Tell whether what listens on a host is reached from its own machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _decoded(text: str) -> bytes:
    """Bytes from base64; empty for what is none, which no user name with a password is."""
    try:
        return base64.b64decode(text.strip(" "), validate=True)
    except (binascii.Error, ValueError):
        return b""


def _equal(given: bytes, expected: str) -> bool:
    """Whether both are the same; how long it takes tells neither how much of them is, nor how long the secret is."""
    digests = [hashlib.sha256(text).digest() for text in (given, expected.encode())]
    return hmac.compare_digest(*digests)
