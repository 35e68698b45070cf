"""Authentication of callers: credentials, compared in constant time, and no pages in browsers."""

import base64
import hashlib
import hmac
import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

_LOOPBACK_NAMES = ("localhost", ".localhost")  # RFC 6761


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
        if self._basic:
            return f"Basic {self._basic}"
        return f"Bearer {self.token}" if self.token else ""

    def accepts(self, authorization: str) -> bool:
        """Return whether an Authorization header (RFC 7617, RFC 6750), empty for none, is accepted."""
        if not self.required:
            return True
        scheme, _, sent = authorization.partition(" ")
        expected = {"basic": self._basic, "bearer": self.token}.get(scheme.lower(), "")
        sent_bytes = sent.strip(" ").encode("latin-1", "replace")  # WSGI headers are Latin-1
        # Digests, so that the time depends neither on the number of equal bytes nor on the length of the secret.
        digests = [hashlib.sha256(text).digest() for text in (sent_bytes, expected.encode())]
        return hmac.compare_digest(*digests) and bool(expected)

    @property
    def _basic(self) -> str:
        text = f"{self.user}:{self.password}"
        return base64.b64encode(text.encode()).decode() if self.user or self.password else ""


def is_browser_request(origin: str | None, fetch_site: str | None) -> bool:
    """Return whether the headers Origin and Sec-Fetch-Site show that a page in a browser made a request.

    Browsers send Origin with every request that changes something (Fetch standard, 3.2 and 2.2.2), and Sec-Fetch-Site
    with all. Refusing both keeps pages from a backend that only listens on the browser's own machine.
    """
    return origin is not None or fetch_site in ("cross-site", "same-site")


def is_known_host(header: str, names: Iterable[str]) -> bool:
    """Return whether a Host header is an address, this machine's own name, or one of `names`, with any port.

    A page of another site can have its own name resolve to this machine (DNS rebinding), but then it sends that name.
    Browsers send the header always, so a request without it is none of a page.

    >>> is_known_host("127.0.0.1:9090", ()), is_known_host("walkcut:9090", ["walkcut"]), is_known_host("a.example", ())
    (True, True, False)
    """
    host = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^:/@\s\[\]]*)(:[0-9]{0,5})?", header)
    if host is None:
        return False
    name = host[1].strip("[]").lower().removesuffix(".")
    try:
        return not name or bool(ipaddress.ip_address(name))
    except ValueError:
        known = [known.lower().partition(":")[0] for known in (*_LOOPBACK_NAMES, *names)]
        return name in known or any(name.endswith(suffix) for suffix in known if suffix.startswith("."))


def is_loopback(host: str) -> bool:
    """Return whether a server that listens on this host can only be reached from its own machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
