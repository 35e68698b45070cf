"""All looks together; each alone is tested in tests/doctor."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.builders.feedback import CONFIG
from tests.builders.http_site import Site, reply, serving
from tests.builders.processes import free_port
from tests.builders.scenes import data_url, png, quarters
from tests.doctor.test_labelstudio import LEGACY, document
from tests.doctor.test_project import HOOK, WELL
from walkcut.doctor import Finding, Means, Target, diagnose
from walkcut.images import ImageLoader
from walkcut.inference.factory import make_access, make_fetch_policy, make_predictor
from walkcut.settings import Settings

MEANS = Means(
    make_access, lambda settings: ImageLoader(make_fetch_policy(settings), make_access(settings)), make_predictor
)
ALL = "versions device weights state disk database port clock address time token switches project config backend"


@pytest.fixture(autouse=True)
def _small_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("walkcut.doctor.server._SIZE", (48, 64))


@pytest.fixture
def site() -> Iterator[Site]:
    """A Label Studio with project 4 in order."""
    with serving(Site()) as site:
        site.routes["/api/version/"] = document({"release": "1.23.2"})
        site.routes["/api/current-user/whoami"] = document({"email": "me@example.com"})
        site.routes["/version/"] = reply(200, b"")
        site.routes["/api/projects/4/"] = document({"title": "Roofs", "label_config": CONFIG})
        site.routes["/api/ml"] = document([WELL])
        site.routes["/api/webhooks/"] = document([HOOK])
        task = {"id": 7, "data": {"photo": data_url(png(quarters(30, 40)))}}
        site.routes["/api/tasks/"] = document({"tasks": [task]})
        yield site


@pytest.fixture
def settings(site: Site, tmp_path: Path) -> Settings:
    return Settings(
        state_dir=tmp_path,
        label_studio_url=site.url,
        label_studio_api_key=LEGACY,
        port=free_port(),
        cache_bytes=0,
    )


def wrong(settings: Settings) -> dict[str, Finding]:
    """The errors, by check."""
    return {finding.check: finding for finding in diagnose(settings, Target(4), MEANS) if finding.level == "error"}


def test_everything_is_looked_at_and_nothing_is_left_behind(settings: Settings, tmp_path: Path) -> None:
    found = list(diagnose(settings, Target(4, 7), MEANS))
    assert list(dict.fromkeys(finding.check for finding in found)) == [
        *ALL.split(),
        "interactive",
        "webhook",
        "image",
    ]
    assert [finding for finding in found if finding.level == "error"] == []
    assert all(finding.remedy for finding in found if finding.level != "ok")
    assert list(tmp_path.iterdir()) == []


def test_without_a_project_none_is_looked_at(site: Site, settings: Settings) -> None:
    found = list(diagnose(settings, Target(), MEANS))
    assert found[-1].check == "switches"


def test_without_label_studio_the_rest_is_looked_at(tmp_path: Path) -> None:
    alone = Settings(state_dir=tmp_path, port=free_port())
    *_, last = diagnose(alone, Target(), MEANS)
    assert (last.check, last.level) == ("address", "warning")
    assert "set LABEL_STUDIO_URL" in last.remedy
    assert wrong(alone).keys() == {"address"}


def test_a_token_without_an_address(tmp_path: Path) -> None:
    found = wrong(Settings(state_dir=tmp_path, port=free_port(), label_studio_api_key=LEGACY))
    assert "LABEL_STUDIO_API_KEY is of no use without LABEL_STUDIO_URL" in found["address"].remedy


def test_a_server_that_is_no_label_studio_is_shown_no_token(site: Site, settings: Settings) -> None:
    site.routes["/api/version/"] = reply(404)
    assert wrong(settings).keys() == {"address"}
    assert not any("Authorization" in seen.headers for seen in site.seen)


def test_a_look_that_breaks_does_not_end_the_others(site: Site, settings: Settings) -> None:
    site.routes["/api/ml"] = document(["no backend"])
    assert wrong(settings).keys() == {"backend"}
    site.routes["/api/projects/4/"] = document("no project")
    assert wrong(settings).keys() == {"project"}


def test_no_project_is_looked_at_with_a_token_that_is_refused(site: Site, settings: Settings) -> None:
    site.routes["/api/current-user/whoami"] = document({"detail": f"Invalid token {LEGACY}"}, 401)
    found = wrong(settings)
    assert found.keys() == {"token", "project"}
    assert found["token"].what == "the legacy token is refused (401: Invalid token …)"
    assert found["project"].remedy == "see to the token first"


def test_no_image_is_looked_for_without_a_brush(site: Site, settings: Settings) -> None:
    site.routes["/api/projects/4/"] = document({"title": "Roofs", "label_config": "<View/>"})
    found = list(diagnose(settings, Target(4), MEANS))
    assert [finding.check for finding in found if finding.level == "error"] == ["config"]
    assert not any(finding.check == "image" for finding in found)
