"""All checks together; the other modules of tests/doctor test them one by one."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.builders.feedback import CONFIG
from tests.builders.http_site import Site, reply, serving
from tests.builders.label_studio_api import BACKEND, LEGACY_TOKEN, WEBHOOK, json_reply
from tests.builders.processes import free_port
from tests.builders.scenes import data_url, png, quarters
from walkcut.doctor import Finding, diagnose
from walkcut.settings import Settings

CHECKS = (
    "versions device weights state disk database port latency address clock token ssrf project config backend "
    "interactive webhook image"
)


@pytest.fixture(autouse=True)
def _small_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("walkcut.doctor.server._IMAGE_SIZE", (48, 64))


@pytest.fixture
def site() -> Iterator[Site]:
    """A Label Studio with project 4, in which nothing is wrong."""
    with serving(Site()) as site:
        site.routes["/api/version/"] = json_reply({"release": "1.23.2"})
        site.routes["/api/current-user/whoami"] = json_reply({"email": "me@example.com"})
        site.routes["/version/"] = reply(200, b"")
        site.routes["/api/projects/4/"] = json_reply({"title": "Roofs", "label_config": CONFIG})
        site.routes["/api/ml"] = json_reply([BACKEND])
        site.routes["/api/webhooks/"] = json_reply([WEBHOOK])
        task = {"id": 7, "data": {"photo": data_url(png(quarters(30, 40)))}}
        site.routes["/api/tasks/"] = json_reply({"tasks": [task]})
        yield site


@pytest.fixture
def settings(site: Site, tmp_path: Path) -> Settings:
    return Settings(
        state_dir=tmp_path,
        label_studio_url=site.url,
        label_studio_api_key=LEGACY_TOKEN,
        port=free_port(),
        cache_bytes=0,
    )


def errors(settings: Settings) -> dict[str, Finding]:
    """Return the errors by check."""
    return {finding.check: finding for finding in diagnose(settings, 4) if finding.severity == "error"}


def test_everything_is_checked_and_nothing_is_left_behind(settings: Settings, tmp_path: Path) -> None:
    findings = list(diagnose(settings, 4, 7))
    assert list(dict.fromkeys(finding.check for finding in findings)) == CHECKS.split()
    assert [finding for finding in findings if finding.severity == "error"] == []
    assert all(finding.remedy for finding in findings if finding.severity != "ok")
    assert list(tmp_path.iterdir()) == []


def test_without_an_id_no_project_is_checked(site: Site, settings: Settings) -> None:
    *_, last = diagnose(settings)
    assert last.check == "ssrf"


def test_without_label_studio_the_rest_is_checked(tmp_path: Path) -> None:
    alone = Settings(state_dir=tmp_path, port=free_port())
    *_, last = diagnose(alone)
    assert (last.check, last.severity) == ("address", "warning")
    assert "set LABEL_STUDIO_URL" in last.remedy
    assert errors(alone).keys() == {"address"}


def test_a_token_without_an_address(tmp_path: Path) -> None:
    findings = errors(Settings(state_dir=tmp_path, port=free_port(), label_studio_api_key=LEGACY_TOKEN))
    assert "LABEL_STUDIO_API_KEY is set without LABEL_STUDIO_URL" in findings["address"].remedy


def test_a_server_that_is_not_label_studio_receives_no_token(site: Site, settings: Settings) -> None:
    site.routes["/api/version/"] = reply(404)
    assert errors(settings).keys() == {"address"}
    assert not any("Authorization" in seen.headers for seen in site.seen)


def test_a_check_that_fails_does_not_stop_the_others(site: Site, settings: Settings) -> None:
    site.routes["/api/ml"] = json_reply(["no backend"])
    assert errors(settings).keys() == {"backend"}
    site.routes["/api/projects/4/"] = json_reply("no project")
    assert errors(settings).keys() == {"project"}


def test_no_project_is_checked_with_a_token_that_is_refused(site: Site, settings: Settings) -> None:
    site.routes["/api/current-user/whoami"] = json_reply({"detail": f"Invalid token {LEGACY_TOKEN}"}, 401)
    findings = errors(settings)
    assert findings.keys() == {"token", "project"}
    assert findings["token"].message == "the legacy token is refused (401: Invalid token …)"
    assert findings["project"].remedy == "correct the token first"


def test_no_image_is_loaded_without_a_brush(site: Site, settings: Settings) -> None:
    site.routes["/api/projects/4/"] = json_reply({"title": "Roofs", "label_config": "<View/>"})
    findings = list(diagnose(settings, 4))
    assert [finding.check for finding in findings if finding.severity == "error"] == ["config"]
    assert not any(finding.check == "image" for finding in findings)
