import json
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler

import pytest

from tests.builders.http_site import PERSONAL, Route, Site, jwt, redirect, reply, serving
from tests.builders.label_studio_api import LEGACY_TOKEN, json_reply
from tests.builders.processes import free_port
from walkcut.doctor.checks import Finding
from walkcut.doctor.labelstudio import (
    LabelStudioProbe,
    check_address,
    check_clock,
    check_ssrf_protection,
    check_token,
    token_kind,
)
from walkcut.errors import LabelStudioError
from walkcut.images import LabelStudioAccess

NOW = datetime(2026, 11, 20, 12, tzinfo=timezone.utc)
ACCESS = jwt(token_type="access", exp=8_000_000_000)
DISABLED = "no longer valid: legacy token authentication has been disabled for this organization"


@pytest.fixture
def site() -> Iterator[Site]:
    """A Label Studio below a path that takes any token."""
    with serving(Site()) as site:
        site.routes["/ls/api/version/"] = json_reply({"release": "1.23.2"})
        site.routes["/ls/api/token/refresh/"] = json_reply({"access": ACCESS})
        site.routes["/ls/api/current-user/whoami"] = json_reply({"email": "me@example.com"})
        yield site


def address(site: Site) -> list[Finding]:
    with closing(LabelStudioProbe(LabelStudioAccess(f"{site.url}/ls"))) as probe:
        return list(check_address(probe, NOW))


def token(site: Site, text: str) -> Finding:
    with closing(LabelStudioProbe(LabelStudioAccess(f"{site.url}/ls", text))) as probe:
        (finding,) = check_token(probe, text, NOW)
    assert not text or text not in finding.message + finding.remedy
    return finding


def test_label_studio_is_recognised_by_its_release(site: Site) -> None:
    found, *_ = address(site)
    assert (found.severity, found.message) == ("ok", f"Label Studio 1.23.2 answers at {site.url}/ls")


@pytest.mark.parametrize(("release", "old"), [("1.7.9", True), ("1.8.0", False), ("1.23.2", False), ("2.0", False)])
def test_an_old_release_is_a_warning(site: Site, release: str, old: bool) -> None:
    site.routes["/ls/api/version/"] = json_reply({"release": release})
    assert ("this release is older than 1.8" in [finding.message for finding in address(site)]) == old


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (reply(404), r"is not Label Studio \(status 404 at /api/version/\): set LABEL_STUDIO_URL"),
        (reply(200, b"<html>"), r"is not Label Studio \(status 200"),
        (json_reply(["release"]), r"is not Label Studio \(status 200"),
        (redirect("https://elsewhere.test/"), "redirects: set LABEL_STUDIO_URL to the address that it redirects to"),
    ],
)
def test_a_server_that_is_not_label_studio(site: Site, answer: Route, message: str) -> None:
    site.routes["/ls/api/version/"] = answer
    with pytest.raises(LabelStudioError, match=message):
        address(site)


def test_an_address_without_a_server() -> None:
    access = LabelStudioAccess(f"http://127.0.0.1:{free_port()}")
    with (
        closing(LabelStudioProbe(access)) as probe,
        pytest.raises(LabelStudioError, match=r"cannot be reached \(.*\): check that it runs"),
    ):
        list(check_address(probe, NOW))


def test_the_clock_is_read_from_the_answer(site: Site) -> None:
    late = format_datetime(NOW + timedelta(seconds=300), usegmt=True)

    def answer(handler: BaseHTTPRequestHandler) -> None:
        vars(handler)["date_time_string"] = lambda _timestamp=None: late
        json_reply({"release": "1.23.2"})(handler)

    site.routes["/ls/api/version/"] = answer
    _, clock = address(site)
    assert (clock.severity, clock.message) == ("warning", "Label Studio's clock is 300 s ahead of this machine's")


@pytest.mark.parametrize(
    ("seconds", "severity", "message"),
    [
        (2, "ok", "agrees"),
        (-2, "ok", "agrees"),
        (20, "warning", "20 s ahead of"),
        (-20, "warning", "20 s behind"),
    ],
)
def test_clocks_that_differ_are_a_warning(seconds: int, severity: str, message: str) -> None:
    finding = check_clock(NOW + timedelta(seconds=seconds), NOW)
    assert (finding.severity, message in finding.message) == (severity, True)
    assert ("NTP" in finding.remedy) == (severity == "warning")


def test_kinds_of_tokens() -> None:
    assert [token_kind(text) for text in (PERSONAL, ACCESS, LEGACY_TOKEN, jwt(sub="x"))] == [
        "personal access token",
        "access token",
        "legacy token",
        "legacy token",
    ]


@pytest.mark.parametrize(("text", "kind"), [(PERSONAL, "personal access token"), (LEGACY_TOKEN, "legacy token")])
def test_a_token_that_is_accepted(site: Site, text: str, kind: str) -> None:
    assert token(site, text) == Finding("token", "ok", f"the {kind} of me@example.com is accepted")
    header = site.seen[-1].headers["Authorization"]
    assert header == (f"Token {LEGACY_TOKEN}" if text == LEGACY_TOKEN else f"Bearer {ACCESS}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ACCESS, "this is an access token, which expires after 5 minutes"),
        (jwt(token_type="refresh", exp=NOW.timestamp() - 1), "the personal access token has expired"),
        (PERSONAL.rpartition(".")[0], "the personal access token lacks its third part"),
        (PERSONAL.rpartition(".")[0] + ".", "the personal access token lacks its third part"),
    ],
)
def test_a_token_that_cannot_work_is_not_sent(site: Site, text: str, message: str) -> None:
    finding = token(site, text)
    assert finding.severity == "error"
    assert finding.message.startswith(message)
    assert "create a personal access token" in finding.remedy
    assert site.seen == []


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, "is refused (401: Token is invalid): it is revoked"),
        (404, "this Label Studio supports legacy tokens only"),
    ],
)
def test_a_personal_access_token_that_is_not_exchanged(site: Site, status: int, message: str) -> None:
    site.routes["/ls/api/token/refresh/"] = json_reply({"detail": "Token is invalid"}, status)
    finding = token(site, PERSONAL)
    assert (finding.severity, message in finding.message) == ("error", True)


def test_no_request_is_sent_with_a_token_that_is_not_exchanged(site: Site) -> None:
    site.routes["/ls/api/token/refresh/"] = json_reply({"detail": "Token is invalid"}, 401)
    expected = r"does not exchange the token \(401\): see the check `token`"
    with (
        closing(LabelStudioProbe(LabelStudioAccess(f"{site.url}/ls", PERSONAL))) as probe,
        pytest.raises(LabelStudioError, match=expected),
    ):
        probe.get("/api/current-user/whoami")
    assert len(site.seen) == 1


@pytest.mark.parametrize(
    ("detail", "message", "remedy"),
    [
        (DISABLED, "legacy tokens are disabled in Label Studio, as they are by default", "or allow legacy tokens"),
        ("Invalid token.", "the legacy token is refused (401: Invalid token.)", "create a personal access token"),
    ],
)
def test_a_legacy_token_that_is_refused(site: Site, detail: str, message: str, remedy: str) -> None:
    site.routes["/ls/api/current-user/whoami"] = json_reply({"detail": detail}, 401)
    finding = token(site, LEGACY_TOKEN)
    assert (finding.severity, finding.message) == ("error", message)
    assert remedy in finding.remedy


def test_no_token_is_a_warning(site: Site) -> None:
    finding = token(site, "")
    assert (finding.severity, "no token is set" in finding.message) == ("warning", True)


@pytest.mark.parametrize(
    ("bans", "models", "webhooks", "message"),
    [
        (False, True, True, "may reach private addresses"),
        (True, False, False, "may reach private addresses"),
        (True, False, True, "but sends it no webhooks (only ML_BLOCK_LOCAL_IP is off)"),
        (True, True, True, "refuses backends at private addresses"),
        (True, True, False, "refuses backends at private addresses"),
    ],
)
def test_addresses_that_label_studio_refuses(
    site: Site, bans: bool, models: bool, webhooks: bool, message: str
) -> None:
    values = {"USE_DEFAULT_BANNED_SUBNETS": bans, "ML_BLOCK_LOCAL_IP": models, "SSRF_PROTECTION_ENABLED": webhooks}
    page = json.dumps(
        {"settings": {name: str(value) for name, value in values.items()} | {"SECRET_KEY": "s"}}, indent=2
    )
    site.routes["/ls/version/"] = reply(200, f"<pre>{page}</pre>".encode())
    with closing(LabelStudioProbe(LabelStudioAccess(f"{site.url}/ls", LEGACY_TOKEN))) as probe:
        (finding,) = check_ssrf_protection(probe)
    assert message in finding.message
    assert finding.severity == ("ok" if message.startswith("may") else "warning")
    assert ("USE_DEFAULT_BANNED_SUBNETS=false" in finding.remedy) == (finding.severity == "warning")


def test_only_superusers_see_which_addresses_are_refused(site: Site) -> None:
    site.routes["/ls/version/"] = reply(200, b"<pre>{}</pre>")
    with closing(LabelStudioProbe(LabelStudioAccess(f"{site.url}/ls", LEGACY_TOKEN))) as probe:
        (finding,) = check_ssrf_protection(probe)
    assert (finding.severity, "only superusers see" in finding.message) == ("ok", True)
