"""Authentication of callers: credentials, compared in constant time, and no pages in browsers."""

import base64
import binascii
import hashlib
import hmac
import ipaddress
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Credentials:
    """User name and password, which Label Studio can send, and a bearer token: callers must send one of the two.

    Empty values are not accepted as credentials. If all are empty, every caller is accepted.

    >>> Credentials("me", "secret").accepts("Basic bWU6c2VjcmV0")
    True
    """

    user: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)

    @property
    def required(self) -> bool:
        """Whether callers must send credentials."""
        return bool(self.user or self.password or self.token)

    @property
    def header(self) -> str:
        """The Authorization header that is accepted; empty if none is required."""
        if self.user or self.password:
            return f"Basic {base64.b64encode(f'{self.user}:{self.password}'.encode()).decode()}"
        return f"Bearer {self.token}" if self.token else ""

    def accepts(self, authorization: str) -> bool:
        """Return whether an Authorization header (RFC 7617, RFC 6750), empty for none, is accepted."""
        if not self.required:
            return True
        scheme, _, sent = authorization.partition(" ")
        match scheme.lower():
            case "basic" if self.user or self.password:
                return _equal(_base64_decoded(sent), f"{self.user}:{self.password}")
            case "bearer" if self.token:
                return _equal(sent.strip(" ").encode("latin-1", "replace"), self.token)  # WSGI headers are Latin-1
        return False


def is_browser_request(origin: str | None, fetch_site: str | None) -> bool:
    """Return whether the headers Origin and Sec-Fetch-Site show that a page in a browser made a request.

    Browsers send Origin with every request that changes something (Fetch standard, 3.2 and 2.2.2), and Sec-Fetch-Site
    with all. Refusing both keeps pages from a backend that only listens on the browser's own machine.
    """
    return origin is not None or fetch_site in ("cross-site", "same-site")


def is_loopback(host: str) -> bool:
    """Return whether a server that listens on this host can only be reached from its own machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _base64_decoded(text: str) -> bytes:
    """Return decoded bytes; empty for invalid base64, which never equals a user name with a password."""
    try:
        return base64.b64decode(text.strip(" "), validate=True)
    except (binascii.Error, ValueError):
        return b""


def _equal(sent: bytes, expected: str) -> bool:
    """Compare in a time that depends neither on the number of equal bytes nor on the length of the secret."""
    digests = [hashlib.sha256(text).digest() for text in (sent, expected.encode())]
    return hmac.compare_digest(*digests)
