import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.builders.http_site import Site, reply, serving
from tests.builders.processes import free_port
from walkcut.doctor import server
from walkcut.doctor.server import (
    ServerError,
    ServerProbe,
    check_port,
    check_prediction,
    check_responses,
    find_server,
    latency_finding,
)
from walkcut.errors import SettingsError, WalkcutError
from walkcut.settings import Settings

UP = json.dumps({"status": "UP", "model_class": "walkcut"}).encode()


@pytest.fixture
def site() -> Iterator[Site]:
    """A server that answers like walkcut."""
    with serving(Site()) as site:
        site.routes["/health"] = reply(200, UP)
        site.routes["/webhook"] = reply(200, b'{"status": "stored"}')
        site.routes["/predict"] = reply(200, b'{"results": [[{"result": []}]]}')
        yield site


@pytest.fixture
def settings(site: Site) -> Settings:
    return Settings(host="0.0.0.0", port=site.server_port, basic_auth_user="ls", basic_auth_pass="secret")


@pytest.fixture
def walkcut(settings: Settings) -> ServerProbe:
    probe = find_server(settings)
    assert probe is not None
    return probe


@pytest.fixture
def _no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_settings: Settings) -> None:
        raise AssertionError

    monkeypatch.setattr(server, "make_predictor", fail)


def test_failures_since_the_start_are_warnings(site: Site, settings: Settings, walkcut: ServerProbe) -> None:
    ready = {"status": "READY", "failures": ["2 RequestError, the last: task 7 has no image"]}
    site.routes["/ready"] = reply(200, json.dumps(ready).encode())
    _, finding = check_port(settings, walkcut)
    assert (finding.severity, finding.message.endswith("start: 2 RequestError, the last: task 7 has no image")) == (
        "warning", True
    )  # fmt: skip


def test_walkcut_is_found_at_its_port(site: Site, settings: Settings, walkcut: ServerProbe) -> None:
    assert walkcut.url == site.url
    (finding,) = check_port(settings, walkcut)
    assert (finding.severity, finding.message) == ("ok", f"walkcut answers at {site.url}")


def test_a_walkcut_that_is_not_ready_says_why(site: Site, settings: Settings, walkcut: ServerProbe) -> None:
    site.routes["/ready"] = reply(503, b'{"status": "NOT READY", "reasons": ["model: it hangs", "database: away"]}')
    _, finding = check_port(settings, walkcut)
    assert finding.severity == "error"
    assert finding.message == "walkcut is not ready for new images: model: it hangs; database: away"
    assert site.seen[-1].headers["Authorization"].startswith("Basic "), "or it would not say why"
    for body in (b'{"status": "READY"}', b"[]", b"<html>", b'{"reasons": 1}'):
        site.routes["/ready"] = reply(200, body)
        assert len(list(check_port(settings, walkcut))) == 1


@pytest.mark.parametrize("body", [b"{}", b"[]", b"<html>"])
def test_another_program_at_the_port_is_not_walkcut(site: Site, settings: Settings, body: bytes) -> None:
    site.routes["/health"] = reply(200, body)
    assert find_server(settings) is None
    (finding,) = check_port(settings, None)
    assert (finding.severity, finding.remedy) == (
        "error",
        "another program uses the port: stop it, or set WALKCUT_PORT to another port",
    )


def test_a_free_port_is_ok() -> None:
    settings = Settings(port=free_port())
    assert find_server(settings) is None
    (finding,) = check_port(settings, None)
    assert (finding.severity, "is free" in finding.message) == ("ok", True)


def test_an_address_of_another_machine_cannot_be_listened_on() -> None:
    for host in ("192.0.2.1", "no host"):
        settings = Settings(host=host, port=free_port())
        (finding,) = check_port(settings, None)
        assert (finding.severity, "set WALKCUT_HOST" in finding.remedy) == ("error", True)
    assert find_server(settings) is None


def test_late_responses_are_errors(site: Site, walkcut: ServerProbe, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.2, 1.5])
    monkeypatch.setattr(server, "_seconds", lambda ask: [ask(), next(times)][1])
    health, webhook = check_responses(walkcut)
    assert (health.severity, health.message) == ("ok", "/health answers in 200 ms; Label Studio waits 1 s")
    assert (webhook.severity, webhook.message) == ("error", "/webhook answers in 1500 ms; Label Studio waits 1 s")
    assert "check what else the machine does" in webhook.remedy
    request = site.seen[-1]
    assert (request.target, json.loads(request.body)) == ("/webhook", {"action": "DOCTOR"})
    assert request.headers["Authorization"].startswith("Basic ")


@pytest.mark.parametrize(
    ("seconds", "timeout", "severity", "message"),
    [
        (2.0, 80.0, "ok", "can predict about 40"),
        (2.0, 500.0, "ok", "can predict about 50"),
        (16.0, 80.0, "warning", "can predict about 5"),
        (90.0, 80.0, "error", "no prediction is in time (WALKCUT_PREDICT_TIMEOUT=80)"),
    ],
)
def test_the_time_of_an_image_against_label_studios_timeout(
    seconds: float, timeout: float, severity: str, message: str
) -> None:
    finding = latency_finding(seconds, timeout)
    assert (finding.severity, message in finding.message) == (severity, True)
    assert bool(finding.remedy) == (severity != "ok")


@pytest.mark.usefixtures("_no_model")
def test_a_running_walkcut_predicts_an_image_that_is_in_no_cache(
    site: Site, settings: Settings, walkcut: ServerProbe
) -> None:
    for _ in range(2):
        (finding,) = check_prediction(settings, walkcut)
        assert finding.check == "latency"
    images = {json.loads(seen.body)["tasks"][0]["data"]["image"] for seen in site.seen if seen.target == "/predict"}
    assert len(images) == 2


def test_a_walkcut_without_predictions(site: Site, settings: Settings, walkcut: ServerProbe) -> None:
    site.routes["/predict"] = reply(200, b'{"results": [[]]}')
    with pytest.raises(ServerError, match="returns no prediction for a test image: see walkcut's log"):
        list(check_prediction(settings, walkcut))


@pytest.mark.parametrize(
    ("status", "named", "message"),
    [
        (401, SettingsError, "refuses the credentials of these settings: set WALKCUT_BASIC_AUTH_USER and"),
        (500, ServerError, "/webhook answered 500: see walkcut's log"),
    ],
)
def test_a_walkcut_that_refuses_requests(
    site: Site, walkcut: ServerProbe, status: int, named: type[WalkcutError], message: str
) -> None:
    site.routes["/webhook"] = reply(status)
    with pytest.raises(named, match=message):
        list(check_responses(walkcut))


def test_walkcut_under_label_studio_ml_has_no_versions(site: Site, settings: Settings) -> None:
    site.routes["/health"] = reply(200, UP.replace(b"walkcut", b"WalkcutModel"))
    probe = find_server(settings)
    assert probe is not None
    assert probe.serves_any({"auto 000001"}, "3")
    assert {seen.target for seen in site.seen} == {"/health"}


def test_a_walkcut_that_has_stopped(settings: Settings) -> None:
    stopped = ServerProbe(f"http://127.0.0.1:{free_port()}")
    with pytest.raises(ServerError, match=r"/health did not answer \(.*\): check whether walkcut is overloaded"):
        list(check_responses(stopped))


def test_a_walkcut_that_is_not_ready_is_still_found(site: Site, settings: Settings) -> None:
    site.routes["/health"] = reply(503, UP)
    assert find_server(settings) is not None


def test_without_a_server_the_classical_model_predicts_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_IMAGE_SIZE", (48, 64))
    (finding,) = check_prediction(Settings(state_dir=tmp_path, model="classical"), None)
    assert "a 64×48 image takes" in finding.message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("_no_model")
def test_without_a_server_no_large_model_is_loaded() -> None:
    (finding,) = check_prediction(Settings(model="sd14"), None)
    assert (finding.severity, "start `walkcut serve`" in finding.remedy) == ("warning", True)


def test_requests_carry_the_token(site: Site) -> None:
    probe = find_server(Settings(host="127.0.0.1", port=site.server_port, token="hunter22"))
    assert probe is not None
    probe.request("/webhook", {})
    assert site.seen[-1].headers["Authorization"] == "Bearer hunter22"
