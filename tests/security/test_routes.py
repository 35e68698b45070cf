"""Attacks on the backend's own routes: without credentials, from pages in browsers, by bodies of any kind."""

import copy
import json
import logging
from base64 import b64encode
from collections.abc import Iterator
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.builders.annotations import masked
from tests.builders.backend import IMAGE, SETUP, Backend, predict_body, running, text_command
from tests.builders.fuzzing import JSON, mutated
from walkcut.errors import WalkcutError
from walkcut.inference.factory import trusts_callers
from walkcut.labelstudio.json_input import read_object
from walkcut.serving.feedback_worker import FeedbackWorker
from walkcut.serving.webhooks import save_event
from walkcut.settings import Settings

OPEN_ENDPOINTS = {"health", "ready"}
POSTED = ["/setup", "/predict", "/webhook"]
ANNOTATED = {
    "id": 1,
    "result": [masked(from_name="b", to_name="im", original_width=40, original_height=30)],
    "updated_at": "2026-11-20T08:38:56Z",
}
POINT = {"id": "p", "type": "keypointlabels", "to_name": "im", "value": {"x": 5, "y": 5, "keypointlabels": ["Finer"]}}
BOX = {"type": "rectanglelabels", "value": {"x": 5, "y": 5, "width": 50, "height": 50, "rotation": 5}}
LABELLED = {"id": 3, "label_config": SETUP["schema"]}
PREDICT_BODY = predict_body(IMAGE)
PREDICT_BODY["tasks"][0] |= {"drafts": [ANNOTATED], "annotations": [ANNOTATED], "predictions": [ANNOTATED]}
BODIES: dict[str, list[Any]] = {
    "/setup": [SETUP | {"access_token": "abc", "extra_params": '{"max_regions": 3, "granularity": "fine"}'}],
    "/predict": [
        PREDICT_BODY,
        PREDICT_BODY | {"params": {"context": text_command("12")}},
        PREDICT_BODY | {"params": {"context": {"result": [POINT, BOX]}}},
    ],
    "/webhook": [
        {
            "action": "ANNOTATION_CREATED",
            "project": LABELLED,
            "task": PREDICT_BODY["tasks"][0],
            "annotation": ANNOTATED,
        },
        {"action": "ANNOTATIONS_DELETED", "project": 3, "annotations": [{"id": 1}]},
        {"action": "TASKS_DELETED", "project": 3, "tasks": [{"id": 1}]},
    ],
}


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    with running(tmp_path_factory.mktemp("state"), Settings()) as backend:
        yield backend


@pytest.fixture
def protected(tmp_path: Path) -> Iterator[Backend]:
    """A backend that requires a password."""
    with running(tmp_path, Settings(basic_auth_user="me", basic_auth_pass="geheim")) as backend:
        yield backend


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + b64encode(f"{user}:{password}".encode()).decode()}


# Without credentials


def test_every_route_that_changes_or_reveals_anything_requires_credentials(protected: Backend) -> None:
    refused = 0
    for rule in protected.app.url_map.iter_rules():
        for method in rule.methods or ():
            answer = protected.client.open(rule.rule, method=method, json={})
            assert (answer.status_code == 401) == (rule.endpoint not in OPEN_ENDPOINTS), (rule.rule, method)
            refused += answer.status_code == 401
    assert refused >= 10
    assert protected.client.get("/nowhere").status_code == 401


@pytest.mark.parametrize(
    "headers",
    [basic("me", "Geheim"), basic("me", ""), basic("", "geheim"), basic("me:geheim", ""), {"Authorization": "Basic"},
     {"Authorization": "Basic !"}, {"Authorization": "Bearer geheim"}, {"Authorization": "Digest username=me"},
     {"X-Forwarded-User": "me"}, {"X-Original-URL": "/health"}],
)  # fmt: skip
def test_wrong_credentials(protected: Backend, headers: dict[str, str]) -> None:
    for path in ("/versions", "/metrics", "/health/../versions", "//versions", "/versions?x=/health"):
        assert protected.client.get(path, headers={"Host": "localhost"} | headers).status_code == 401
    assert protected.client.get("/versions", headers=basic("me", "geheim")).status_code == 200


def test_a_token_is_as_good_as_a_password_and_no_more(tmp_path: Path) -> None:
    both = Settings(basic_auth_user="me", basic_auth_pass="geheim", token="abc")
    with running(tmp_path, both) as backend:
        for headers, status in (
            ({"Authorization": "Bearer abc"}, 200),
            (basic("me", "geheim"), 200),
            ({"Authorization": "Bearer abd"}, 401),
            (basic("me", "abc"), 401),
            ({}, 401),
        ):
            assert backend.client.get("/metrics", headers=headers).status_code == status


@pytest.mark.parametrize("headers", [{"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}])
def test_pages_in_a_browser_on_the_same_machine(backend: Backend, protected: Backend, headers: dict[str, str]) -> None:
    """Also without required credentials, or with those that the browser keeps."""
    for target, credentials in ((backend, {}), (protected, basic("me", "geheim"))):
        for path in POSTED:
            answer = target.client.post(path, data=json.dumps(BODIES[path][0]), headers=headers | credentials)
            assert answer.status_code == 403
        assert target.client.get("/versions", headers=headers | credentials).status_code == 403


FOREIGN = ["evil.example", "evil.example:9090", "127.0.0.1.evil.example", "localhost.evil.example", "evil.localhost.x",
           "walkcut", "walkcut.example", "notwalkcut", "2130706433", "1.2.3.4.5"]  # fmt: skip
MALFORMED = ["evil.example#@127.0.0.1", "127.0.0.1@evil.example", "[::1", "::1", "[::1].evil.example", "a b",
             "a\x1b[31m", "a\tb", "127.0.0.1, evil.example", "[fe80::1%25eth0]", "a" * 81]  # fmt: skip
OWN = ["127.0.0.1", "127.0.0.1:9090", "192.168.1.5:9090", "[::1]:9090", "[2001:db8::1]", "localhost", "LOCALHOST:9090",
       "localhost.", "walkcut.localhost:9090", ""]  # fmt: skip


@pytest.mark.parametrize("path", ["/metrics", "/versions", "/ready", "/setup", "/nowhere"])
def test_a_name_that_is_not_walkcuts_is_refused(backend: Backend, protected: Backend, path: str) -> None:
    """A page can have its own name resolve to 127.0.0.1, and then reads what a page of that origin may read."""
    callers = [(backend, dict[str, str]()), (protected, basic("me", "geheim"))]
    method = "POST" if path == "/setup" else "GET"
    for (target, credentials), host in product(callers, FOREIGN + MALFORMED):
        answer = target.client.open(path, headers={"Host": host} | credentials, method=method, json={})
        assert answer.status_code == 403, host
        remedy = "add it to WALKCUT_HOST_NAMES" if host in FOREIGN else "call walkcut by its name or address"
        assert remedy in str(answer.json)
        assert remedy in answer.status


@pytest.mark.parametrize("host", OWN)
def test_addresses_and_names_of_this_machine_are_answered(backend: Backend, host: str) -> None:
    assert backend.client.get("/versions", headers={"Host": host}).status_code == 200


def test_configured_names_are_answered(tmp_path: Path) -> None:
    names = Settings(host_names=("walkcut", "Walkcut.internal", ".example.org", "my_service:9090"), host="own.example")
    with running(tmp_path, names) as backend:
        for host in ("walkcut:9090", "walkcut.internal", "WALKCUT", "a.b.example.org", "my_service:80", "own.example"):
            assert backend.client.get("/metrics", headers={"Host": host}).status_code == 200, host
        for host in ("example.org", "bexample.org", "walkcut.evil"):
            assert backend.client.get("/metrics", headers={"Host": host}).status_code == 403, host


def test_the_health_check_answers_to_any_name_and_tells_nothing(backend: Backend) -> None:
    answer = backend.client.get("/health", headers={"Host": "evil.example"})
    assert (answer.status_code, answer.json) == (200, {"status": "UP", "model_class": "walkcut"})


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (Settings(), True),
        (Settings(host="0.0.0.0"), False),
        (Settings(host="0.0.0.0", token="abc"), True),
        (Settings(host="0.0.0.0", basic_auth_user="me"), True),
    ],
)
def test_only_known_callers_may_name_a_label_studio(settings: Settings, expected: bool) -> None:
    assert trusts_callers(settings) == expected


# Bodies


class ErrorLog(logging.Handler):
    """The messages logged as errors."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(f"{record.getMessage()} {record.exc_info}")


@pytest.fixture
def error_log() -> Iterator[ErrorLog]:
    handler = ErrorLog()
    logging.getLogger("walkcut").addHandler(handler)
    yield handler
    logging.getLogger("walkcut").removeHandler(handler)


def paths(document: object, parent: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path to each value in a document; in long lists, to the first few only."""
    pairs: list[tuple[Any, Any]] = []
    if isinstance(document, dict):
        pairs = list(document.items())
    elif isinstance(document, list):
        pairs = list(enumerate(document[:4]))
    return [parent, *(path for key, inner in pairs for path in paths(inner, (*parent, key)))]


@st.composite
def altered(draw: st.DrawFn, documents: list[Any]) -> bytes:
    """Draw a document as JSON with one to three of its values replaced."""
    document = copy.deepcopy(draw(st.sampled_from(documents)))
    for *path, last in draw(st.lists(st.sampled_from(paths(document)[1:]), min_size=1, max_size=3)):
        with suppress(LookupError, TypeError):  # an earlier replacement removed it
            container = document
            for key in path:
                container = container[key]
            container[last] = draw(JSON)
    return json.dumps(document).encode()


def fuzz(backend: Backend, error_log: ErrorLog, path: str, profile: settings) -> None:
    raw = mutated([json.dumps(body).encode() for body in BODIES[path]])

    @profile
    @given(st.one_of(altered(BODIES[path]), altered(BODIES[path]), raw, st.binary()))
    def check(body: bytes) -> None:
        answer = backend.client.post(path, data=body)
        assert answer.status_code in {200, 400}, answer.text
        assert json.loads(answer.text).keys() <= {"error", "model_version", "results", "status"}
        assert error_log.messages == []

    check()


@pytest.mark.filterwarnings("ignore")  # Pillow and numpy warn of much that is damaged
@pytest.mark.parametrize("path", POSTED)
def test_any_body_is_answered(backend: Backend, error_log: ErrorLog, path: str) -> None:
    fuzz(backend, error_log, path, settings(max_examples=300, suppress_health_check=list(HealthCheck)))


def fuzz_feedback(backend: Backend, profile: settings) -> None:
    feedback_worker = FeedbackWorker(backend.predictor, backend.store)

    @profile
    @given(altered(BODIES["/webhook"]))
    def check(body: bytes) -> None:
        with suppress(WalkcutError):
            document = read_object(body)
            save_event(backend.store, str(document.get("action")), "3", document)
            feedback_worker.learn_due()

    check()


@pytest.mark.filterwarnings("ignore")
def test_any_event_is_processed_or_refused(backend: Backend) -> None:
    fuzz_feedback(backend, settings(max_examples=200, suppress_health_check=list(HealthCheck)))


@pytest.mark.soak
@pytest.mark.filterwarnings("ignore")
def test_any_event_is_processed_or_refused_at_length(backend: Backend) -> None:
    fuzz_feedback(backend, settings(max_examples=10_000, derandomize=False, suppress_health_check=list(HealthCheck)))


@pytest.mark.soak
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", POSTED)
def test_any_body_is_answered_at_length(backend: Backend, error_log: ErrorLog, path: str) -> None:
    long = settings(max_examples=20_000, derandomize=False, suppress_health_check=list(HealthCheck))
    fuzz(backend, error_log, path, long)


@pytest.mark.parametrize("path", POSTED)
@pytest.mark.parametrize(
    "body", [b"[" * 100_000, b'{"a":' * 100_000 + b"1" + b"}" * 100_000, b'{"tasks":' + b"[" * 200 + b"]" * 200 + b"}"]
)
def test_lists_in_lists_in_lists(backend: Backend, error_log: ErrorLog, path: str, body: bytes) -> None:
    assert backend.client.post(path, data=body).status_code == 400
    assert error_log.messages == []


@pytest.mark.parametrize("path", POSTED)
def test_a_body_beyond_the_limit(backend: Backend, path: str) -> None:
    max_bytes = backend.app.config["MAX_CONTENT_LENGTH"]
    answer = backend.client.post(path, environ_overrides={"CONTENT_LENGTH": str(max_bytes + 1)})
    assert answer.status_code == 413
