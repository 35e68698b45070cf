"""HTTP requests to Label Studio, with the token of the settings, in bounded time and memory."""

import ssl
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import certifi
import httpcore
import httpx

from walkcut.images import Deadline, LabelStudioAccess
from walkcut.images.tokens import TokenAuth, exchange_token
from walkcut.images.transport import Request, Response

MAX_RESPONSE_BYTES = 128_000_000  # as the default limit of a request from Label Studio
_ENCODINGS = frozenset({"", "identity", "gzip"})  # of these a small response cannot become a huge one in one step
_BODY_HEADERS = frozenset({"content-encoding", "content-length", "transfer-encoding"})
_WRITTEN_BYTES = 65536

_deadline: ContextVar[Deadline | None] = ContextVar("deadline", default=None)


class ResponseRefusedError(httpx.HTTPError):
    """A response that is too large, or compressed in an unexpected way."""


class Connection:
    """Requests to one Label Studio as the user of a token; safe to share between threads.

    Redirects are not followed: the token is for this address alone. `timeout` limits the seconds of each exchange as a
    whole, however often data arrives, and `max_bytes` the body of each response.
    """

    def __init__(
        self,
        access: LabelStudioAccess,
        *,
        timeout: float = 30.0,
        max_bytes: int = MAX_RESPONSE_BYTES,
        ca_bundle: Path | None = None,
    ) -> None:
        certificates = ssl.create_default_context(cafile=ca_bundle or certifi.where())
        self.url, self.timeout, self._access = access.url.rstrip("/"), timeout, access
        self._max_bytes = max_bytes
        headers = {"Accept-Encoding": "gzip"}
        self._http = httpx.Client(timeout=timeout, follow_redirects=False, verify=certificates, headers=headers)
        _limit_time(self._http)
        self._auth = TokenAuth(access.token, self.exchange_token, time.monotonic) if access.token else None

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str | int] | None = None,
        json: object = None,
        files: Mapping[str, tuple[str, bytes]] | None = None,
        timeout: float | None = None,
        anonymous: bool = False,
    ) -> httpx.Response:
        """Send a request, with the token unless `anonymous`, and return the response of any status.

        Raises `httpx.HTTPError`, of which `ResponseRefusedError` is one, `TokenExchangeError`, or `TimeoutError` where
        another thread exchanges the token.
        """
        headers = (
            {} if self._auth is None or anonymous else {"Authorization": self._auth.header(Deadline(self.timeout))}
        )
        url, deadline = f"{self.url}{path}", Deadline(timeout or self.timeout)
        return self._exchange(method, url, deadline, params=params, json=json, files=files, headers=headers)

    def exchange_token(self, deadline: Deadline | None = None) -> str:
        """Exchange the personal access token for an access token. Raises `TokenExchangeError`, `httpx.HTTPError`."""
        return exchange_token(self._access, self._send, deadline or Deadline(self.timeout))

    def _send(self, request: Request, deadline: Deadline) -> Response:
        headers = dict(request.headers)
        response = self._exchange(request.method, request.url, deadline, content=request.body, headers=headers)
        return Response(response.status_code, response.headers.get("Location"), response.content)

    def _exchange(self, method: str, url: str, deadline: Deadline, **content: Any) -> httpx.Response:
        limit = httpx.Timeout(deadline.remaining())
        with _ends_by(deadline), self._http.stream(method, url, timeout=limit, **content) as response:
            body = self._read(response)
            headers = [(name, value) for name, value in response.headers.multi_items() if name not in _BODY_HEADERS]
            return httpx.Response(response.status_code, headers=headers, content=body, request=response.request)

    def _read(self, response: httpx.Response) -> bytes:
        """Return the body of a response. Raises `ResponseRefusedError` for one that is too large."""
        encoding, length = (response.headers.get(name, "") for name in ("Content-Encoding", "Content-Length"))
        if encoding.strip().lower() not in _ENCODINGS:
            raise ResponseRefusedError(f"sent a response compressed as {encoding[:40]!r}, which was not asked for")
        self._check_size(int(length) if length.isdecimal() else 0)
        body = bytearray()
        for chunk in response.iter_bytes():
            body += chunk
            self._check_size(len(body))
        return bytes(body)

    def _check_size(self, size: int) -> None:
        if size > self._max_bytes:
            raise ResponseRefusedError(f"sent a response of more than {self._max_bytes} bytes")


@contextmanager
def _ends_by(deadline: Deadline) -> Iterator[None]:
    """Have all that this thread reads and writes inside end by a deadline."""
    token = _deadline.set(deadline)
    try:
        yield
    finally:
        _deadline.reset(token)


def _limit_time(client: httpx.Client) -> None:
    """Make a client keep to the deadline of `_ends_by`: its own timeouts begin again with every byte that arrives."""
    transports = (client._transport, *client._mounts.values())  # noqa: SLF001 - httpx has no public way to do this
    for pool in (vars(transport)["_pool"] for transport in transports if transport is not None):
        pool._network_backend = _TimedBackend()  # noqa: SLF001


def _seconds_left() -> float | None:
    """Return the seconds to the deadline. Raises `httpcore.ReadTimeout` after it."""
    deadline = _deadline.get()
    try:
        return None if deadline is None else deadline.remaining()
    except TimeoutError as error:
        raise httpcore.ReadTimeout from error


class _TimedBackend(httpcore.NetworkBackend):
    """Connections whose every step ends by the deadline."""

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ARG002 - the deadline counts
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect by the deadline."""
        return _TimedStream(
            httpcore.SyncBackend().connect_tcp(host, port, _seconds_left(), local_address, socket_options)
        )


class _TimedStream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002
        return self._stream.read(max_bytes, _seconds_left())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002
        for start in range(0, len(buffer), _WRITTEN_BYTES):
            self._stream.write(buffer[start : start + _WRITTEN_BYTES], _seconds_left())

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ARG002
    ) -> httpcore.NetworkStream:
        return _TimedStream(self._stream.start_tls(ssl_context, server_hostname, _seconds_left()))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
