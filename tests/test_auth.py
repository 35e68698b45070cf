from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from walkcut.auth import Credentials, is_browser_request, is_loopback

PASSWORD = Credentials("me", "geheim:ü")
TOKEN = Credentials(token="abc.def")
BOTH = Credentials("me", "geheim:ü", "abc.def")


def basic(text: str) -> str:
    return "Basic " + b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("credentials", "header"),
    [
        (Credentials(), ""),
        (Credentials(), "Bearer anything"),
        (PASSWORD, basic("me:geheim:ü")),
        (PASSWORD, basic("me:geheim:ü").replace("Basic", "bAsIc ")),
        (TOKEN, "Bearer abc.def"),
        (TOKEN, "bearer  abc.def "),
        (BOTH, basic("me:geheim:ü")),
        (BOTH, "Bearer abc.def"),
        (Credentials(password="x"), basic(":x")),
    ],
)
def test_valid_credentials_are_accepted(credentials: Credentials, header: str) -> None:
    assert credentials.accepts(header)


@pytest.mark.parametrize("credentials", [PASSWORD, TOKEN, BOTH])
@pytest.mark.parametrize(
    "header",
    [
        "", "Basic", "Basic ", "Bearer", "Bearer ", "Basic ???", "Basic \ud800", "Bearer \ud800", "Bearer \u00fc",
        "Token abc.def",
        basic("me"), basic("me:"), basic(":"), basic("me:geheim"), basic("you:geheim:ü"), basic("me:geheim:ü "),
        basic("me:geheim:ü").removeprefix("Basic "), "Bearer abc.de", "Bearer abc.def.", "Bearer geheim:ü",
        "Basic abc.def", "Basic " + b64encode(b"me:\xff").decode(),
    ],
)  # fmt: skip
def test_other_credentials_are_refused(credentials: Credentials, header: str) -> None:
    assert not credentials.accepts(header)


def test_a_token_may_have_any_characters() -> None:
    assert Credentials(token="süß").accepts("Bearer " + "süß".encode().decode("latin-1"))


def test_an_empty_token_or_password_is_refused() -> None:
    assert not TOKEN.accepts(basic(":"))
    assert not PASSWORD.accepts("Bearer ")
    assert not PASSWORD.accepts("Bearer")


@given(st.sampled_from(["", "Basic ", "Bearer "]), st.text(st.characters()))
def test_any_header_can_be_checked(scheme: str, sent: str) -> None:
    assert not BOTH.accepts(scheme + sent)


def test_secrets_are_not_printed() -> None:
    assert "geheim" not in repr(BOTH)
    assert "abc" not in repr(BOTH)


@pytest.mark.parametrize(
    ("origin", "fetch_site", "expected"),
    [
        (None, None, False),  # Label Studio, curl, Prometheus
        (None, "none", False),  # an address typed into a browser
        (None, "cross-site", True),
        (None, "same-site", True),
        ("https://evil.example", "cross-site", True),
        ("null", None, True),
        ("http://evil.example", "same-origin", True),  # a name that resolves to this machine (DNS rebinding)
    ],
)
def test_pages_in_browsers_are_recognised(origin: str | None, fetch_site: str | None, expected: bool) -> None:
    assert is_browser_request(origin, fetch_site) == expected


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.3.2.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False),
     ("", False), ("192.168.1.1", False), ("walkcut", False)],
)  # fmt: skip
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) == expected
