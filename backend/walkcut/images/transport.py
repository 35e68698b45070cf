"""One HTTP exchange in bounded time and memory, over a connection to an address that was checked.

httpx has no public way to choose the address that it connects to, so httpcore, which lies beneath it, is used directly:
the name is resolved once, and a resolver that changes its answer gains nothing (DNS rebinding). Proxies from the
environment, ~/.netrc, redirects, cookies and content encodings are features of httpx that httpcore does not have.
"""

import http
import logging
import socket
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote, urlsplit

import certifi
import httpcore

from walkcut.errors import ImageFetchError
from walkcut.images.address_policy import Address, Resolver, allowed_addresses
from walkcut.images.policy import FetchPolicy, Origin, parse_origin

_HEADERS: Final = {"User-Agent": "walkcut", "Accept-Encoding": "identity", "Connection": "close"}
_MAX_HEADERS: Final = 100
_MAX_HEAD_BYTES: Final = 65536
_COMPRESSIONS: Final = (
    frozenset(  # content codings (IANA) that change the bytes; stores send other words beside plain ones
        {"gzip", "x-gzip", "compress", "x-compress", "deflate", "br", "zstd", "dcb", "dcz", "exi", "pack200-gzip"}
    )
)
_URL_CHARACTERS: Final = "%/:=&?~#+!$,;'@()*[]"  # kept unquoted beside letters and digits, and so is an existing %20

logging.getLogger("httpcore").setLevel(logging.INFO)  # its DEBUG lines hold headers, also signed addresses in Location


class Deadline:
    """A point in time, by a clock that never goes backwards."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._at = clock, clock() + seconds

    @property
    def passed(self) -> bool:
        """Whether the deadline is over."""
        return self._clock() >= self._at

    def remaining(self, limit: float | None = None) -> float:
        """Return the seconds left, more than 0 and at most `limit`. Raises `TimeoutError` after the deadline."""
        seconds = self._at - self._clock()
        if seconds <= 0:
            raise TimeoutError
        return seconds if limit is None else min(seconds, limit)


@dataclass(frozen=True)
class Request:
    """An HTTP request; headers and body may hold a token, so they are not printed."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    method: str = "GET"
    body: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Response:
    """An HTTP response; the body is read for status 200 only."""

    status: int
    location: str | None
    body: bytes


class Transport:
    """Sends HTTP requests within a policy; the `trusted` origin may be private. Safe to share between threads."""

    def __init__(self, policy: FetchPolicy, trusted: Origin | None, resolve: Resolver) -> None:
        self._policy, self._trusted, self._resolve = policy, trusted, resolve
        self._tls = ssl.create_default_context(cafile=policy.ca_bundle or certifi.where())

    def send(self, request: Request, deadline: Deadline) -> Response:
        """Send a request and read the response, without following redirects.

        Raises `ImageFetchError` if the address is not allowed or the body too large or compressed; `OSError`,
        `httpcore.ProtocolError` or `ValueError` where the network, the server or the URL is at fault.
        """
        url, headers = _http_url(request.url), [*_HEADERS.items(), *request.headers.items()]
        addresses = allowed_addresses(parse_origin(request.url), self._policy, self._trusted, self._resolve)
        timeouts = {"timeout": {"connect": self._policy.connect_timeout}}
        # httpcore alters its TLS context at each connection, so `_tls`, which threads share, stays with the backend.
        tls, backend = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), _PinnedBackend(addresses, deadline, self._tls)
        with (
            httpcore.HTTPConnection(url.origin, tls, network_backend=backend) as connection,
            connection.stream(
                request.method, url, headers=headers, content=request.body, extensions=timeouts
            ) as response,
        ):
            _check_head(response)
            body = self._body(response) if response.status == http.HTTPStatus.OK else b""
            return Response(response.status, _header(response, b"location"), body)

    def _body(self, response: httpcore.Response) -> bytes:
        encoding = _header(response, b"content-encoding") or ""
        compressions = _COMPRESSIONS.intersection(word.strip() for word in encoding.lower().split(","))
        if compressions:
            names = ", ".join(sorted(compressions))
            raise ImageFetchError(f"the server compressed the response ({names}). Store the image without {names}.")
        self._policy.check_bytes(int(_header(response, b"content-length") or 0))
        body = bytearray()
        for chunk in response.iter_stream():
            body += chunk
            self._policy.check_bytes(len(body))
        return bytes(body)


def _http_url(url: str) -> httpcore.URL:
    origin, parts = parse_origin(url), urlsplit(url)
    host = f"[{origin.host}]".encode() if ":" in origin.host else origin.host.encode("idna")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    target = quote(target, _URL_CHARACTERS, errors="surrogateescape")
    return httpcore.URL(scheme=origin.scheme, host=host, port=origin.port, target=target)


def _header(response: httpcore.Response, name: bytes) -> str | None:
    """Return a header's values, joined if there are several; None without any.

    Bytes that are not UTF-8 become surrogates, which `_http_url` turns into the same bytes.
    """
    values = [value.decode("utf-8", "surrogateescape") for key, value in response.headers if key.lower() == name]
    return ", ".join(values) if values else None


def _check_head(response: httpcore.Response) -> None:
    """Refuse overlong heads: httpcore limits neither the number of headers nor a head that arrives in one piece."""
    size = sum(len(key) + len(value) for key, value in response.headers)
    size += len(response.extensions.get("reason_phrase", b""))
    if len(response.headers) > _MAX_HEADERS or size > _MAX_HEAD_BYTES:
        raise httpcore.RemoteProtocolError(f"{len(response.headers)} headers of {size} bytes are too many")


class _PinnedBackend(httpcore.NetworkBackend):
    """Connects to the first given address that answers, whatever name httpcore asks for."""

    def __init__(self, addresses: Sequence[Address], deadline: Deadline, tls: ssl.SSLContext) -> None:
        self._addresses, self._deadline, self._tls = addresses, deadline, tls

    def connect_tcp(
        self,
        host: str,  # noqa: ARG002 (resolved already)
        port: int,
        timeout: float | None = None,
        *_args: object,
        **_options: object,
    ) -> httpcore.NetworkStream:
        """Connect to a pinned address: localhost may stand for ::1, where nobody listens, too."""
        failure: OSError = OSError("its name has no address")
        for address in self._addresses:
            try:
                connected = socket.create_connection((str(address), port), self._deadline.remaining(timeout))
                return _TimedStream(connected, self._deadline, self._tls)
            except OSError as error:
                failure = error
        raise failure


class _TimedStream(httpcore.NetworkStream):
    """A connected socket whose reads, writes and TLS handshake all end by one deadline."""

    def __init__(self, connected: socket.socket, deadline: Deadline, tls: ssl.SSLContext) -> None:
        self._socket, self._deadline, self._tls = connected, deadline, tls

    def _set_timeout(self, timeout: float | None) -> None:
        self._socket.settimeout(self._deadline.remaining(timeout))

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        self._set_timeout(timeout)
        return self._socket.recv(max_bytes)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._set_timeout(timeout)
        self._socket.sendall(buffer)

    def close(self) -> None:
        self._socket.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,  # noqa: ARG002 (a blank one, see `Transport.send`)
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        """Check the certificate against the host's name, although the connection is to an address."""
        self._set_timeout(timeout)
        name = server_hostname.strip("[]") if server_hostname else None  # of IPv6 without brackets
        secured = self._tls.wrap_socket(self._socket, server_hostname=name)
        return _TimedStream(secured, self._deadline, self._tls)
