import io
import json
import logging
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.builders.backend import CONFIG, IMAGE, SETUP, Backend, basic, document, listening, predict_body, running
from walkcut.settings import Settings
from walkcut.telemetry.logs import formatter


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """The log as JSON."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter("json"))
    logging.getLogger().addHandler(handler)
    logging.getLogger().setLevel(logging.INFO)
    yield stream
    logging.getLogger().removeHandler(handler)
    logging.getLogger().setLevel(logging.WARNING)


def test_log_lines_name_request_project_and_task(backend: Backend, lines: io.StringIO) -> None:
    document = predict_body(IMAGE, "gone.jpg")
    answer = backend.client.post("/predict", json=document, headers={"X-Request-ID": "from-a-proxy.1"})
    assert answer.headers["X-Request-ID"] == "from-a-proxy.1"
    failure, access = map(json.loads, lines.getvalue().splitlines())
    context = {"request_id": "from-a-proxy.1", "endpoint": "predict", "project": "3", "tasks": "1,2"}
    assert failure | context | {"task": 2, "levelname": "WARNING"} == failure
    assert access | context == access
    assert access["message"].startswith("POST predict: 200 in ")
    assert "task" not in access


@pytest.mark.parametrize("sent", [None, "", "a b", "x" * 65, "\u00e9", "{}"])
def test_a_request_without_a_valid_id_gets_one(backend: Backend, sent: str | None) -> None:
    headers = {} if sent is None else {"X-Request-ID": sent}
    ids = {backend.client.get("/health", headers=headers).headers["X-Request-ID"] for _ in range(2)}
    assert len(ids) == 2
    assert all(len(request_id) == 16 for request_id in ids)


def test_polls_are_not_logged_unless_they_fail(backend: Backend, lines: io.StringIO) -> None:
    for path in ("/health", "/ready", "/metrics"):
        backend.client.get(path)
    assert lines.getvalue() == ""
    backend.predictor.tree_service.stop_accepting()
    backend.client.get("/ready")
    assert "GET ready: 503" in lines.getvalue()


def test_secrets_are_not_logged(tmp_path: Path, lines: io.StringIO) -> None:
    with running(tmp_path, Settings(basic_auth_user="me", basic_auth_pass="geheim")) as backend:
        secrets = {"access_token": "hush", "hostname": "http://me:hush@ls"}
        for body in (SETUP | secrets, secrets, "hush"):
            backend.client.post("/setup?token=hush", json=body, headers=basic("me", "geheim"))
            backend.client.post("/setup?token=hush", json=body, headers=basic("me", "wrong-secret"))
    logged = lines.getvalue()
    assert logged.count("POST set_up") == 6
    assert not [secret for secret in ("hush", "geheim", "wrong-secret") if secret in logged]


TOO_LARGE = (
    "the request is larger than 1 MB: ask for fewer tasks at a time, run `walkcut prelabel --project`, "
    "or set WALKCUT_MAX_BODY_MB to more"
)


@pytest.mark.parametrize("path", ["/predict", "/setup", "/webhook"])
def test_a_body_beyond_the_limit_is_refused_with_the_remedy(
    tmp_path: Path, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    with running(tmp_path, Settings(max_body_mb=1)) as backend:
        assert backend.client.post(path, data=b"x" * 1_000_000).status_code == 400
        answer = backend.client.post(path, data=b"x" * 1_000_001)
    assert (answer.status_code, answer.json) == (413, {"error": TOO_LARGE})
    assert TOO_LARGE in caplog.text


@pytest.mark.parametrize("chunked", [False, True])
def test_the_server_refuses_it_too_with_or_without_its_length(tmp_path: Path, chunked: bool) -> None:
    def ask(url: str, size: int) -> tuple[int, str]:
        whole = b"x" * size
        answer = requests.post(f"{url}/webhook", data=iter([whole]) if chunked else whole, timeout=60)
        return answer.status_code, answer.json()["error"]

    with running(tmp_path, Settings(max_body_mb=1)) as backend, listening(backend, 9) as url:
        assert ask(url, 1_000_000)[0] == 400
        for size in (1_000_001, 1_900_000):
            assert ask(url, size) == (413, TOO_LARGE)


@pytest.mark.parametrize(
    ("header", "begin"),
    [("Transfer-Encoding: chunked", b"FFFFFFFF\r\n" + b"x" * 2_000_000), ("Content-Length: 2000000", b"")],
)
def test_a_body_far_beyond_the_limit_is_refused_before_its_end(tmp_path: Path, header: str, begin: bytes) -> None:
    with running(tmp_path, Settings(max_body_mb=1)) as backend, listening(backend, 9) as url:
        address = ("127.0.0.1", int(url.rpartition(":")[2]))
        with socket.create_connection(address, timeout=60) as connection:
            connection.sendall(f"POST /webhook HTTP/1.1\r\nHost: walkcut\r\n{header}\r\n\r\n".encode() + begin)
            assert connection.recv(12) == b"HTTP/1.1 413"


def test_a_password_is_required_everywhere_but_for_health(tmp_path: Path) -> None:
    with running(tmp_path, Settings(basic_auth_user="me", basic_auth_pass="geheim")) as backend:
        get = backend.client.get
        assert get("/health").status_code == 200
        for headers in ({}, basic("me", "wrong"), basic("you", "geheim"), {"Authorization": "Bearer geheim"}):
            answer = get("/versions", headers=headers)
            assert answer.status_code == 401
            assert "WWW-Authenticate" in answer.headers
        assert get("/versions", headers=basic("me", "geheim")).status_code == 200
        assert get("/ready").status_code in {200, 503}
        assert backend.client.post("/predict", json=predict_body()).status_code == 401


def test_unknown_paths_and_bugs_are_answered_as_json_without_a_traceback(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert document(backend.client.get("/nowhere"))["error"]
    monkeypatch.setattr(backend.store.annotations, "delete", None)
    answer = backend.client.post("/webhook", json={"action": "ANNOTATIONS_DELETED", "project": 3, "annotations": []})
    assert answer.status_code == 500
    assert answer.json == {"error": "a bug in walkcut: please report it; its log has the details"}
    assert backend.sample("walkcut_failures_total", reason="TypeError") == 1


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (
            "<View/>",
            "such as BrushLabels, on an Image, and the labelling config has no [Image]: use [View][Image name=",
        ),
        (CONFIG.format(' max_regions="0"'), "max_regions is 0: use a whole number of at least 1"),
        (CONFIG.format(' granularity="a&lt;b&gt;&amp;&#8594;&#10;X-Evil: 1"'), "'a[b]and"),
        ("", "the labelling config is not readable XML"),
    ],
)
def test_the_status_line_of_a_refusal_says_why(backend: Backend, schema: str, message: str) -> None:
    body, headers = SETUP | {"schema": schema}, {"Connection": "close"}
    with listening(backend, 9) as url:
        answer = requests.post(f"{url}/setup", json=body, headers=headers, timeout=60)
    with pytest.raises(requests.HTTPError) as raised:  # whose text Label Studio shows
        answer.raise_for_status()
    assert str(raised.value).startswith("400 Client Error: ")
    assert message in str(raised.value)
    assert str(raised.value).isascii()
    assert not set("<>&\r\n") & set(answer.reason)
    assert "X-Evil" not in answer.headers
    assert answer.json()["error"]
