import json
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.builders.http_site import PERSONAL, Site, jwt, reply, serving
from walkcut.errors import API_KEY_REMEDY, TokenExchangeError
from walkcut.images import LabelStudioAccess
from walkcut.labelstudio.connection import Connection

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
