import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders.http_site import PERSONAL, Clock, jwt
from walkcut.images.tokens import TokenAuth, jwt_claims
from walkcut.images.transport import Deadline


class Mint:
    """Exchanges a personal access token for one new access token after another."""

    def __init__(self, **claims: object) -> None:
        self.claims = claims
        self.minted: list[str] = []

    def __call__(self, deadline: Deadline) -> str:
        self.minted.append(jwt(token_type="access", number=len(self.minted), **self.claims))
        return self.minted[-1]


@given(st.text() | st.from_regex(r"[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*", fullmatch=True))
def test_claims_of_any_text_are_a_dict(text: str) -> None:
    assert isinstance(jwt_claims(text), dict)


def test_claims() -> None:
    assert jwt_claims(jwt(token_type="refresh", exp=5)) == {"token_type": "refresh", "exp": 5}
    assert jwt_claims("0123456789abcdef0123456789abcdef01234567") == {}


def test_a_legacy_token_is_shown_as_it_is() -> None:
    mint, clock = Mint(), Clock()
    authorization = TokenAuth("0123abcd", mint, clock)
    assert authorization.kind == "legacy token"
    assert authorization.header(Deadline(1.0, clock)) == "Token 0123abcd"
    assert authorization.header(Deadline(1.0, clock), refused="Token 0123abcd") == "Token 0123abcd"
    assert not mint.minted


@pytest.mark.parametrize("token", [PERSONAL, PERSONAL.rpartition(".")[0]])
def test_a_personal_token_is_known_even_without_its_signature(token: str) -> None:
    assert TokenAuth(token, Mint(), Clock()).kind == "personal access token"


@pytest.mark.parametrize(
    ("claims", "seconds"),
    [
        ({"iat": 10**9, "exp": 10**9 + 300}, 240),  # by its own account, whatever the time is over there
        ({"iat": 10**9, "exp": 10**9 + 1000}, 940),
        ({"iat": 10**9, "exp": 10**9 + 60}, 30),
        ({"exp": 10**9}, 240),
        ({"iat": 5, "exp": 5}, 240),
        ({"iat": "x", "exp": None}, 240),
        ({}, 240),
    ],
)
def test_an_access_token_is_kept_until_shortly_before_it_expires(claims: dict[str, object], seconds: int) -> None:
    mint, clock = Mint(**claims), Clock()
    authorization = TokenAuth(PERSONAL, mint, clock)
    for later, expected in [(0, 1), (seconds - 1, 1), (seconds, 2)]:
        clock.now = 1000.0 + later
        assert authorization.header(Deadline(1.0, clock)) == f"Bearer {mint.minted[-1]}"
        assert len(mint.minted) == expected


def test_a_refused_access_token_is_renewed_once_for_all() -> None:
    mint, clock = Mint(), Clock()
    authorization = TokenAuth(PERSONAL, mint, clock)
    first = authorization.header(Deadline(1.0, clock))
    second = authorization.header(Deadline(1.0, clock), refused=first)
    assert second != first
    assert authorization.header(Deadline(1.0, clock), refused=first) == second
    assert len(mint.minted) == 2


def test_one_thread_exchanges_and_the_others_wait_until_their_deadline() -> None:
    started, finish, clock = threading.Event(), threading.Event(), Clock()
    mint = Mint()

    def slow(deadline: Deadline) -> str:
        started.set()
        finish.wait(10)
        return mint(deadline)

    authorization = TokenAuth(PERSONAL, slow, clock)
    headers: list[str] = []
    threads = [
        threading.Thread(target=lambda: headers.append(authorization.header(Deadline(10.0, clock)))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    started.wait(10)
    with pytest.raises(TimeoutError):
        authorization.header(Deadline(0.01, clock))
    finish.set()
    for thread in threads:
        thread.join()
    assert headers == [f"Bearer {mint.minted[0]}"] * 4
