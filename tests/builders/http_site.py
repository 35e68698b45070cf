"""A web server on the loopback interface with the answers that a test writes, a clock to move, and tokens."""

import base64
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple, TypeVar
from urllib.parse import urlsplit

import pytest

Route = Callable[[BaseHTTPRequestHandler], None]


class Seen(NamedTuple):
    """A request that the server received."""

    target: str
    headers: dict[str, str]
    body: bytes


class Site(ThreadingHTTPServer):
    """A server that answers by `routes` (path to answer) and keeps the requests in `seen`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.routes: dict[str, Route] = {}
        self.seen: list[Seen] = []


class _Handler(BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.seen.append(Seen(self.path, dict(self.headers), body))
        self.server.routes.get(urlsplit(self.path).path, reply(404))(self)

    do_POST = do_DELETE = do_GET  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Keep the tests' output clean."""


SiteT = TypeVar("SiteT", bound=Site)


def reply(status: int = 200, body: bytes = b"", headers: dict[str, str] | None = None) -> Route:
    """Return an answer that is always the same."""

    def route(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    return route


def redirect(location: str, status: int = 302) -> Route:
    """Return a redirect."""
    return reply(status, headers={"Location": location})


@contextmanager
def serving(site: SiteT) -> Iterator[SiteT]:
    """Serve a site from a thread."""
    with site:
        thread = threading.Thread(target=site.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield site
        site.shutdown()
        thread.join()


@pytest.fixture
def site() -> Iterator[Site]:
    """A server that plays Label Studio."""
    with serving(Site()) as server:
        yield server


@pytest.fixture
def elsewhere() -> Iterator[Site]:
    """A second server, of another origin."""
    with serving(Site()) as server:
        yield server


class Clock:
    """A clock that stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def jwt(**claims: object) -> str:
    """Return a JSON Web Token with these claims."""
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"eyJhbGciOiJIUzI1NiJ9.{payload}.c2lnbmF0dXJl"


PERSONAL = jwt(token_type="refresh", exp=8_000_000_000)
