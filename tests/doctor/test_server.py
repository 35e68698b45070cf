import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.builders.http_site import Site, reply, serving
from tests.builders.processes import free_port
from tests.inference.test_predictor import predictor
from walkcut.doctor import server
from walkcut.doctor.server import ServerProbe, check_answers, check_port, check_prediction, find_server, latency_finding
from walkcut.errors import RequestError, SettingsError, WalkcutError
from walkcut.inference.predictor import Predictor
from walkcut.settings import Settings

UP = json.dumps({"status": "UP", "model_class": "walkcut"}).encode()


@pytest.fixture
def site() -> Iterator[Site]:
    """What answers like walkcut."""
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
    found = find_server(settings)
    assert found is not None
    return found


def never() -> Predictor:
    raise AssertionError


def test_walkcut_is_found_at_its_port(site: Site, settings: Settings, walkcut: ServerProbe) -> None:
    assert walkcut.url == site.url
    (finding,) = check_port(settings, walkcut)
    assert (finding.level, finding.what) == ("ok", f"walkcut answers at {site.url}")


def test_a_walkcut_that_is_not_ready_says_why(site: Site, settings: Settings, walkcut: ServerProbe) -> None:
    site.routes["/ready"] = reply(503, b'{"status": "NOT READY", "reasons": ["model: it hangs", "database: away"]}')
    _, finding = check_port(settings, walkcut)
    assert finding.level == "error"
    assert finding.what == "walkcut is not ready for new images: model: it hangs; database: away"
    assert site.seen[-1].headers["Authorization"].startswith("Basic "), "or it would not say why"
    for said in (b'{"status": "READY"}', b"[]", b"<html>", b'{"reasons": 1}'):
        site.routes["/ready"] = reply(200, said)
        assert len(list(check_port(settings, walkcut))) == 1


@pytest.mark.parametrize("said", [b"{}", b"[]", b"<html>"])
def test_another_program_at_the_port_is_not_taken_for_walkcut(site: Site, settings: Settings, said: bytes) -> None:
    site.routes["/health"] = reply(200, said)
    assert find_server(settings) is None
    (finding,) = check_port(settings, None)
    assert (finding.level, finding.remedy) == (
        "error",
        "another program listens there: end it, or set WALKCUT_PORT to another port",
    )


def test_a_free_port_is_in_order() -> None:
    settings = Settings(port=free_port())
    assert find_server(settings) is None
    (finding,) = check_port(settings, None)
    assert (finding.level, "is free" in finding.what) == ("ok", True)


def test_an_address_of_another_machine_cannot_be_listened_on() -> None:
    for host in ("192.0.2.1", "no host"):
        settings = Settings(host=host, port=free_port())
        (finding,) = check_port(settings, None)
        assert (finding.level, "set WALKCUT_HOST" in finding.remedy) == ("error", True)
    assert find_server(settings) is None


def test_answers_in_time_are_in_order_and_late_ones_are_not(
    site: Site, walkcut: ServerProbe, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter([0.2, 1.5])
    monkeypatch.setattr(server, "_seconds", lambda ask: [ask(), next(times)][1])
    health, webhook = check_answers(walkcut)
    assert (health.level, health.what) == ("ok", "/health answers in 200 ms; Label Studio waits 1 s")
    assert (webhook.level, webhook.what) == ("error", "/webhook answers in 1500 ms; Label Studio waits 1 s")
    assert "see what else the machine does" in webhook.remedy
    told = site.seen[-1]
    assert (told.target, json.loads(told.body)) == ("/webhook", {"action": "DOCTOR"})
    assert told.headers["Authorization"].startswith("Basic ")


@pytest.mark.parametrize(
    ("seconds", "timeout", "level", "said"),
    [
        (2.0, 80.0, "ok", "has time for about 40"),
        (2.0, 500.0, "ok", "has time for about 50"),
        (16.0, 80.0, "warning", "has time for about 5"),
        (90.0, 80.0, "error", "none is done in time (WALKCUT_PREDICT_TIMEOUT=80)"),
    ],
)
def test_the_time_of_a_image_against_label_studios_limit(seconds: float, timeout: float, level: str, said: str) -> None:
    finding = latency_finding(seconds, timeout)
    assert (finding.level, said in finding.what) == (level, True)
    assert bool(finding.remedy) == (level != "ok")


def test_a_walkcut_that_runs_predicts_a_image_that_no_cache_knows(
    site: Site, settings: Settings, walkcut: ServerProbe
) -> None:
    for _ in range(2):
        (finding,) = check_prediction(settings, walkcut, never)
        assert finding.check == "clock"
    images = {json.loads(seen.body)["tasks"][0]["data"]["image"] for seen in site.seen if seen.target == "/predict"}
    assert len(images) == 2


def test_a_walkcut_that_predicts_nothing(site: Site, settings: Settings, walkcut: ServerProbe) -> None:
    site.routes["/predict"] = reply(200, b'{"results": [[]]}')
    with pytest.raises(RequestError, match="predicts nothing for an image made for the purpose: see walkcut's log"):
        list(check_prediction(settings, walkcut, never))


@pytest.mark.parametrize(
    ("status", "named", "message"),
    [
        (401, SettingsError, "does not take the credentials that are set here: set WALKCUT_BASIC_AUTH_USER and"),
        (500, RequestError, "/webhook answered 500: see walkcut's log"),
    ],
)
def test_a_walkcut_that_refuses(
    site: Site, walkcut: ServerProbe, status: int, named: type[WalkcutError], message: str
) -> None:
    site.routes["/webhook"] = reply(status)
    with pytest.raises(named, match=message):
        list(check_answers(walkcut))


def test_walkcut_under_label_studio_ml_is_known_and_asked_for_no_versions(site: Site, settings: Settings) -> None:
    site.routes["/health"] = reply(200, UP.replace(b"walkcut", b"WalkcutModel"))
    found = find_server(settings)
    assert found is not None
    assert found.has_offered({"auto-walkcut-1"})
    assert {seen.target for seen in site.seen} == {"/health"}


def test_a_walkcut_that_goes_away(settings: Settings) -> None:
    gone = ServerProbe(f"http://127.0.0.1:{free_port()}")
    with pytest.raises(RequestError, match=r"/health did not answer \(.*\): see whether walkcut is overloaded"):
        list(check_answers(gone))


def test_a_walkcut_that_is_not_ready_is_still_found(site: Site, settings: Settings) -> None:
    site.routes["/health"] = reply(503, UP)
    assert find_server(settings) is not None


def test_without_one_the_embedded_model_predicts_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_SIZE", (48, 64))
    (finding,) = check_prediction(Settings(), None, lambda: predictor(tmp_path))
    assert "a new image of 64×48 takes" in finding.what


def test_without_one_no_large_model_is_loaded() -> None:
    (finding,) = check_prediction(Settings(model="sd14"), None, never)
    assert (finding.level, "start `walkcut serve`" in finding.remedy) == ("warning", True)


def test_walkcut_is_asked_with_the_token(site: Site) -> None:
    found = find_server(Settings(host="127.0.0.1", port=site.server_port, token="hunter22"))
    assert found is not None
    found.post("/webhook", {})
    assert site.seen[-1].headers["Authorization"] == "Bearer hunter22"
