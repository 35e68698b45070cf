import gzip
import json
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from http.server import BaseHTTPRequestHandler

import httpx
import pytest

from tests.builders.http_site import PERSONAL, Route, Site, jwt, reply, serving
from walkcut.errors import API_KEY_REMEDY, TokenExchangeError
from walkcut.images import LabelStudioAccess
from walkcut.labelstudio.connection import Connection, ResponseRefusedError

ACCESS = jwt(token_type="access", exp=8_000_000_000)


@pytest.fixture
def site() -> Iterator[Site]:
    with serving(Site()) as site:
        site.routes["/ls/api/token/refresh/"] = reply(body=json.dumps({"access": ACCESS}).encode())
        yield site


@pytest.fixture
def connection(site: Site) -> Iterator[Connection]:
    with closing(Connection(LabelStudioAccess(f"{site.url}/ls/", PERSONAL))) as connection:
        yield connection


def test_the_personal_access_token_is_exchanged_once(site: Site, connection: Connection) -> None:
    for _ in range(2):
        connection.request("GET", "/api/projects/", params={"page": 1})
    refresh, *others = site.seen
    assert (refresh.target, json.loads(refresh.body)) == ("/ls/api/token/refresh/", {"refresh": PERSONAL})
    assert [(seen.target, seen.headers["Authorization"]) for seen in others] == [
        ("/ls/api/projects/?page=1", f"Bearer {ACCESS}")
    ] * 2


def test_an_anonymous_request_has_no_token(site: Site, connection: Connection) -> None:
    connection.request("GET", "/api/version/", anonymous=True)
    assert ["Authorization" in seen.headers for seen in site.seen] == [False]


@pytest.mark.parametrize(
    ("status", "body", "detail"),
    [(401, b'{"detail": "Token is  invalid"}', "Token is invalid"), (404, b"<html>", ""), (200, b'{"access": 1}', "")],
)
def test_a_refused_exchange_is_named_with_the_remedy(
    site: Site, connection: Connection, status: int, body: bytes, detail: str
) -> None:
    site.routes["/ls/api/token/refresh/"] = reply(status, body)
    with pytest.raises(
        TokenExchangeError,
        match=rf"answered {status} \(.+\) to the personal access token: {API_KEY_REMEDY}",
    ) as caught:
        connection.request("GET", "/api/projects/")
    assert (caught.value.status, caught.value.detail) == (status, detail)
    assert PERSONAL not in str(caught.value)


def test_redirects_are_not_followed(site: Site, connection: Connection) -> None:
    site.routes["/ls/api/projects/"] = reply(302, headers={"Location": f"{site.url}/elsewhere"})
    assert connection.request("GET", "/api/projects/").status_code == 302
    assert all(seen.target != "/elsewhere" for seen in site.seen)


def endless(chunk: bytes, pause: float, headers: str = "Content-Type: application/json\r\n\r\n") -> Route:
    """Return a route that sends a chunk again and again until the client has gone, after this head."""

    def route(handler: BaseHTTPRequestHandler) -> None:
        with suppress(OSError):
            handler.wfile.write(f"HTTP/1.0 200 OK\r\n{headers}".encode())
            for _ in range(1000):
                handler.wfile.write(chunk)
                handler.wfile.flush()
                time.sleep(pause)

    return route


DRIPS = {
    "body": endless(b" ", 0.05),
    "head": endless(b"a", 0.05, "X-Long: "),
    "headers": endless(b"X-Other: a\r\n", 0.05, ""),
    "gzip": endless(gzip.compress(b" "), 0.05, "Content-Encoding: gzip\r\n\r\n"),
}


@pytest.mark.parametrize("route", DRIPS.values(), ids=DRIPS)
def test_an_answer_that_drips_ends_at_the_deadline(site: Site, route: Route) -> None:
    site.routes["/ls/api/projects/"] = route
    access = LabelStudioAccess(f"{site.url}/ls/", "0123abcd")
    with closing(Connection(access, timeout=0.5)) as connection:
        begin = time.monotonic()
        with pytest.raises(httpx.TimeoutException):
            connection.request("GET", "/api/projects/")
        assert 0.4 < time.monotonic() - begin < 5


LARGE = {
    "endless": endless(b" " * 10_000, 0),
    "announced": reply(headers={"Content-Length": str(3 << 30)}),
    "gzip bomb": reply(body=gzip.compress(b" " * 10_000_000), headers={"Content-Encoding": "gzip"}),
    "exchange": reply(404, b" " * 200_000),
}


@pytest.mark.parametrize("route", LARGE.values(), ids=LARGE)
@pytest.mark.parametrize("path", ["projects/", "token/refresh/"])
def test_an_answer_that_is_too_large_is_refused(site: Site, route: Route, path: str) -> None:
    site.routes[f"/ls/api/{path}"] = route
    access = LabelStudioAccess(f"{site.url}/ls/", PERSONAL)
    with (
        closing(Connection(access, max_bytes=100_000)) as connection,
        pytest.raises(ResponseRefusedError, match="sent a response of more than 100000 bytes"),
    ):
        connection.request("GET", "/api/projects/")


def test_an_answer_may_be_compressed_with_gzip_alone(site: Site, connection: Connection) -> None:
    site.routes["/ls/api/projects/"] = reply(body=gzip.compress(b"[1]"), headers={"Content-Encoding": "gzip"})
    assert connection.request("GET", "/api/projects/").json() == [1]
    twice = gzip.compress(gzip.compress(b"[1]"))
    site.routes["/ls/api/projects/"] = reply(body=twice, headers={"Content-Encoding": "gzip, gzip"})
    with pytest.raises(ResponseRefusedError, match="compressed as 'gzip, gzip', which was not asked for"):
        connection.request("GET", "/api/projects/")


def test_requests_through_a_proxy_of_the_environment_have_a_deadline_too(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", site.url)
    site.routes["/api/projects/"] = DRIPS["body"]
    access = LabelStudioAccess("http://label-studio.example", "0123abcd")
    with closing(Connection(access, timeout=0.5)) as connection, pytest.raises(httpx.TimeoutException):
        connection.request("GET", "/api/projects/")
    assert len(site.seen) == 1
