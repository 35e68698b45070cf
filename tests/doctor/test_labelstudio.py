import json
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler

import pytest

from tests.builders.http_site import PERSONAL, Route, Site, jwt, redirect, reply, serving
from tests.builders.processes import free_port
from walkcut.doctor.checks import Finding
from walkcut.doctor.labelstudio import check_address, check_feature_flags, check_token, compare_clocks, token_kind
from walkcut.doctor.probe import Api
from walkcut.errors import LabelStudioError
from walkcut.images import LabelStudioAccess

NOW = datetime(2026, 11, 20, 12, tzinfo=timezone.utc)
LEGACY, ACCESS = "0123456789abcdef" * 2, jwt(token_type="access", exp=8_000_000_000)
DISABLED = "no longer valid: legacy token authentication has been disabled for this organization"


def document(content: object, status: int = 200, **headers: str) -> Route:
    return reply(status, json.dumps(content).encode(), headers)


@pytest.fixture
def site() -> Iterator[Site]:
    """A Label Studio below a path that takes any token."""
    with serving(Site()) as site:
        site.routes["/ls/api/version/"] = document({"release": "1.23.2"})
        site.routes["/ls/api/token/refresh/"] = document({"access": ACCESS})
        site.routes["/ls/api/current-user/whoami"] = document({"email": "me@example.com"})
        yield site


def address(site: Site) -> list[Finding]:
    with closing(Api(LabelStudioAccess(f"{site.url}/ls"))) as api:
        return list(check_address(api, NOW))


def token(site: Site, text: str) -> Finding:
    with closing(Api(LabelStudioAccess(f"{site.url}/ls", text))) as api:
        (finding,) = check_token(api, text, NOW)
    assert not text or text not in finding.what + finding.remedy
    return finding


def test_a_label_studio_is_known_by_its_release(site: Site) -> None:
    found, *_ = address(site)
    assert (found.level, found.what) == ("ok", f"Label Studio 1.23.2 answers at {site.url}/ls")


@pytest.mark.parametrize(("release", "old"), [("1.7.9", True), ("1.8.0", False), ("1.23.2", False), ("2.0", False)])
def test_an_old_release_is_a_warning(site: Site, release: str, old: bool) -> None:
    site.routes["/ls/api/version/"] = document({"release": release})
    assert ("it is older than 1.8" in [finding.what for finding in address(site)]) == old


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (reply(404), r"is no Label Studio \(status 404 at /api/version/\): set LABEL_STUDIO_URL"),
        (reply(200, b"<html>"), r"is no Label Studio \(status 200"),
        (document(["release"]), r"is no Label Studio \(status 200"),
        (redirect("https://elsewhere.test/"), "redirects: set LABEL_STUDIO_URL to the address that it redirects to"),
    ],
)
def test_another_server_is_not_taken_for_label_studio(site: Site, answer: Route, message: str) -> None:
    site.routes["/ls/api/version/"] = answer
    with pytest.raises(LabelStudioError, match=message):
        address(site)


def test_an_address_where_nobody_answers() -> None:
    access = LabelStudioAccess(f"http://127.0.0.1:{free_port()}")
    with (
        closing(Api(access)) as api,
        pytest.raises(LabelStudioError, match=r"cannot be reached \(.*\): see that it is up"),
    ):
        list(check_address(api, NOW))


def test_the_clock_is_read_from_the_answer(site: Site) -> None:
    late = format_datetime(NOW + timedelta(seconds=300), usegmt=True)

    def answer(handler: BaseHTTPRequestHandler) -> None:
        vars(handler)["date_time_string"] = lambda _timestamp=None: late
        document({"release": "1.23.2"})(handler)

    site.routes["/ls/api/version/"] = answer
    _, clock = address(site)
    assert (clock.level, clock.what) == ("warning", "its clock is 300 s ahead of this machine's")


@pytest.mark.parametrize(
    ("seconds", "level", "said"),
    [
        (59, "ok", "agrees"),
        (-59, "ok", "agrees"),
        (61, "warning", "61 s ahead of"),
        (-61, "warning", "61 s behind"),
    ],
)
def test_clocks_that_differ_are_a_warning(seconds: int, level: str, said: str) -> None:
    finding = compare_clocks(NOW + timedelta(seconds=seconds), NOW)
    assert (finding.level, said in finding.what) == (level, True)
    assert ("NTP" in finding.remedy) == (level == "warning")


def test_kinds_of_tokens() -> None:
    assert [token_kind(each) for each in (PERSONAL, ACCESS, LEGACY, jwt(sub="x"))] == [
        "personal access token",
        "access token",
        "legacy token",
        "legacy token",
    ]


@pytest.mark.parametrize(("text", "kind"), [(PERSONAL, "personal access token"), (LEGACY, "legacy token")])
def test_a_token_that_is_taken(site: Site, text: str, kind: str) -> None:
    assert token(site, text) == Finding("token", "ok", f"{kind} of me@example.com, accepted")
    shown = site.seen[-1].headers["Authorization"]
    assert shown == (f"Token {LEGACY}" if text == LEGACY else f"Bearer {ACCESS}")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (ACCESS, "it is an access token, which lives 5 minutes only"),
        (jwt(token_type="refresh", exp=NOW.timestamp() - 1), "the personal access token has expired"),
        (PERSONAL.rpartition(".")[0], "the personal access token lacks its third part"),
        (PERSONAL.rpartition(".")[0] + ".", "the personal access token lacks its third part"),
    ],
)
def test_a_token_that_cannot_be_of_use_is_not_even_tried(site: Site, text: str, said: str) -> None:
    finding = token(site, text)
    assert finding.level == "error"
    assert finding.what.startswith(said)
    assert "make a personal access token" in finding.remedy
    assert site.seen == []


@pytest.mark.parametrize(
    ("status", "said"),
    [(401, "is refused (401: Token is invalid): revoked"), (404, "this Label Studio knows legacy tokens only")],
)
def test_a_personal_access_token_that_is_not_exchanged(site: Site, status: int, said: str) -> None:
    site.routes["/ls/api/token/refresh/"] = document({"detail": "Token is invalid"}, status)
    finding = token(site, PERSONAL)
    assert (finding.level, said in finding.what) == ("error", True)


def test_nothing_is_asked_with_a_token_that_is_not_exchanged(site: Site) -> None:
    site.routes["/ls/api/token/refresh/"] = document({"detail": "Token is invalid"}, 401)
    expected = r"does not exchange the token \(401\): see `token`"
    with (
        closing(Api(LabelStudioAccess(f"{site.url}/ls", PERSONAL))) as api,
        pytest.raises(LabelStudioError, match=expected),
    ):
        api.get("/api/current-user/whoami")
    assert len(site.seen) == 1


@pytest.mark.parametrize(
    ("detail", "said", "remedy"),
    [
        (DISABLED, "it is a legacy token, which Label Studio has disabled, as by default", "or allow legacy tokens"),
        ("Invalid token.", "the legacy token is refused (401: Invalid token.)", "make a personal access token"),
    ],
)
def test_a_legacy_token_that_is_refused(site: Site, detail: str, said: str, remedy: str) -> None:
    site.routes["/ls/api/current-user/whoami"] = document({"detail": detail}, 401)
    finding = token(site, LEGACY)
    assert (finding.level, finding.what) == ("error", said)
    assert remedy in finding.remedy


def test_no_token_is_a_warning(site: Site) -> None:
    finding = token(site, "")
    assert (finding.level, "no token is set" in finding.what) == ("warning", True)


@pytest.mark.parametrize(
    ("bans", "models", "webhooks", "said"),
    [
        (False, True, True, "may reach backends at private addresses"),
        (True, False, False, "may reach backends at private addresses"),
        (True, False, True, "but sends it no webhooks (ML_BLOCK_LOCAL_IP alone is off)"),
        (True, True, True, "refuses backends at private addresses"),
        (True, True, False, "refuses backends at private addresses"),
    ],
)
def test_what_label_studio_reaches(site: Site, bans: bool, models: bool, webhooks: bool, said: str) -> None:
    told = {"USE_DEFAULT_BANNED_SUBNETS": bans, "ML_BLOCK_LOCAL_IP": models, "SSRF_PROTECTION_ENABLED": webhooks}
    page = json.dumps({"settings": {name: str(value) for name, value in told.items()} | {"SECRET_KEY": "s"}}, indent=2)
    site.routes["/ls/version/"] = reply(200, f"<pre>{page}</pre>".encode())
    with closing(Api(LabelStudioAccess(f"{site.url}/ls", LEGACY))) as api:
        (finding,) = check_feature_flags(api)
    assert said in finding.what
    assert finding.level == ("ok" if said.startswith("may") else "warning")
    assert ("USE_DEFAULT_BANNED_SUBNETS=false" in finding.remedy) == (finding.level == "warning")


def test_what_label_studio_reaches_is_told_to_superusers_only(site: Site) -> None:
    site.routes["/ls/version/"] = reply(200, b"<pre>{}</pre>")
    with closing(Api(LabelStudioAccess(f"{site.url}/ls", LEGACY))) as api:
        (finding,) = check_feature_flags(api)
    assert (finding.level, "told to superusers only" in finding.what) == ("ok", True)
