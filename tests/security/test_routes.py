"""Attacks on the backend's own routes: without credentials, from pages in browsers, by bodies of any kind."""

import copy
import json
import logging
from base64 import b64encode
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.builders.annotations import masked
from tests.builders.backend import IMAGE, SETUP, Backend, predict_body, running, text_command
from tests.security.test_fuzz import ANY, mutated
from walkcut.errors import WalkcutError
from walkcut.inference.factory import trusts_callers
from walkcut.labelstudio import read_object
from walkcut.serving.feedback import FeedbackWorker
from walkcut.settings import Settings
from walkcut.storage import Event

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
ASKED = predict_body(IMAGE)
ASKED["tasks"][0] |= {"drafts": [ANNOTATED], "annotations": [ANNOTATED], "predictions": [ANNOTATED]}
BODIES: dict[str, list[Any]] = {
    "/setup": [SETUP | {"access_token": "abc", "extra_params": '{"max_regions": 3, "granularity": "fine"}'}],
    "/predict": [
        ASKED,
        ASKED | {"params": {"context": text_command("12")}},
        ASKED | {"params": {"context": {"result": [POINT, BOX]}}},
    ],
    "/webhook": [
        {"action": "ANNOTATION_CREATED", "project": LABELLED, "task": ASKED["tasks"][0], "annotation": ANNOTATED},
        {"action": "ANNOTATIONS_DELETED", "project": 3, "annotations": [{"id": 1}]},
        {"action": "TASKS_DELETED", "project": 3, "tasks": [{"id": 1}]},
    ],
}


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    with running(tmp_path_factory.mktemp("state"), Settings()) as backend:
        yield backend


@pytest.fixture
def isolate_failure(tmp_path: Path) -> Iterator[Backend]:
    """A backend that asks for a password."""
    with running(tmp_path, Settings(basic_auth_user="me", basic_auth_pass="geheim")) as backend:
        yield backend


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + b64encode(f"{user}:{password}".encode()).decode()}


# Without credentials


def test_every_route_that_changes_or_reveals_anything_asks_for_credentials(isolate_failure: Backend) -> None:
    asked = 0
    for rule in isolate_failure.app.url_map.iter_rules():
        for method in rule.methods or ():
            answer = isolate_failure.client.open(rule.rule, method=method, json={})
            assert (answer.status_code == 401) == (rule.endpoint not in OPEN_ENDPOINTS), (rule.rule, method)
            asked += answer.status_code == 401
    assert asked >= 10
    assert isolate_failure.client.get("/nowhere").status_code == 401


@pytest.mark.parametrize(
    "headers",
    [basic("me", "Geheim"), basic("me", ""), basic("", "geheim"), basic("me:geheim", ""), {"Authorization": "Basic"},
     {"Authorization": "Basic !"}, {"Authorization": "Bearer geheim"}, {"Authorization": "Digest username=me"},
     {"X-Forwarded-User": "me"}, {"X-Original-URL": "/health"}],
)  # fmt: skip
def test_wrong_credentials(isolate_failure: Backend, headers: dict[str, str]) -> None:
    for path in ("/versions", "/metrics", "/health/../versions", "//versions", "/versions?x=/health"):
        assert isolate_failure.client.get(path, headers=headers).status_code == 401
    assert isolate_failure.client.get("/versions", headers=basic("me", "geheim")).status_code == 200


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
def test_pages_in_a_browser_on_the_same_machine(
    backend: Backend, isolate_failure: Backend, headers: dict[str, str]
) -> None:
    """Also where no credentials are asked for, or the browser knows them."""
    for asked, known in ((backend, {}), (isolate_failure, basic("me", "geheim"))):
        for path in POSTED:
            answer = asked.client.post(path, data=json.dumps(BODIES[path][0]), headers=headers | known)
            assert answer.status_code == 403
        assert asked.client.get("/versions", headers=headers | known).status_code == 403


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (Settings(), True),
        (Settings(host="0.0.0.0"), False),
        (Settings(host="0.0.0.0", token="abc"), True),
        (Settings(host="0.0.0.0", basic_auth_user="me"), True),
    ],
)
def test_a_label_studio_that_anybody_may_name_is_not_asked(settings: Settings, expected: bool) -> None:
    assert trusts_callers(settings) == expected


# Bodies


class Defects(logging.Handler):
    """What the log tells of defects."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.told: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.told.append(f"{record.getMessage()} {record.exc_info}")


@pytest.fixture
def defects() -> Iterator[Defects]:
    found = Defects()
    logging.getLogger("walkcut").addHandler(found)
    yield found
    logging.getLogger("walkcut").removeHandler(found)


def places(document: object, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to each value in a document; of long lists to the first few."""
    pairs: list[tuple[Any, Any]] = []
    if isinstance(document, dict):
        pairs = list(document.items())
    elif isinstance(document, list):
        pairs = list(enumerate(document[:4]))
    return [at, *(place for key, inner in pairs for place in places(inner, (*at, key)))]


@st.composite
def altered(draw: st.DrawFn, documents: list[Any]) -> bytes:
    """A document as JSON, one to three of its values replaced by others."""
    document = copy.deepcopy(draw(st.sampled_from(documents)))
    for *way, last in draw(st.lists(st.sampled_from(places(document)[1:]), min_size=1, max_size=3)):
        with suppress(LookupError, TypeError):  # what was there is gone already
            holder = document
            for key in way:
                holder = holder[key]
            holder[last] = draw(ANY)
    return json.dumps(document).encode()


def fuzz(backend: Backend, defects: Defects, path: str, profile: settings) -> None:
    raw = mutated([json.dumps(body).encode() for body in BODIES[path]])

    @profile
    @given(st.one_of(altered(BODIES[path]), altered(BODIES[path]), raw, st.binary()))
    def check(body: bytes) -> None:
        answer = backend.client.post(path, data=body)
        assert answer.status_code in {200, 400}, answer.text
        assert json.loads(answer.text).keys() <= {"error", "model_version", "results", "status"}
        assert defects.told == []

    check()


@pytest.mark.filterwarnings("ignore")  # Pillow and numpy warn of much that is damaged
@pytest.mark.parametrize("path", POSTED)
def test_any_body_is_answered(backend: Backend, defects: Defects, path: str) -> None:
    fuzz(backend, defects, path, settings(max_examples=300, suppress_health_check=list(HealthCheck)))


def fuzz_learning(backend: Backend, profile: settings) -> None:
    feedback_worker = FeedbackWorker(backend.predictor, backend.store)

    @profile
    @given(altered(BODIES["/webhook"]))
    def check(body: bytes) -> None:
        with suppress(WalkcutError):
            document = read_object(body)
            feedback_worker.process(Event(str(document.get("action")), "3", document))

    check()


@pytest.mark.filterwarnings("ignore")
def test_any_event_is_learned_from_or_refused(backend: Backend) -> None:
    fuzz_learning(backend, settings(max_examples=200, suppress_health_check=list(HealthCheck)))


@pytest.mark.soak
@pytest.mark.filterwarnings("ignore")
def test_any_event_is_learned_from_or_refused_at_length(backend: Backend) -> None:
    fuzz_learning(backend, settings(max_examples=10_000, derandomize=False, suppress_health_check=list(HealthCheck)))


@pytest.mark.soak
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", POSTED)
def test_any_body_is_answered_at_length(backend: Backend, defects: Defects, path: str) -> None:
    long = settings(max_examples=20_000, derandomize=False, suppress_health_check=list(HealthCheck))
    fuzz(backend, defects, path, long)


@pytest.mark.parametrize("path", POSTED)
@pytest.mark.parametrize(
    "body", [b"[" * 100_000, b'{"a":' * 100_000 + b"1" + b"}" * 100_000, b'{"tasks":' + b"[" * 200 + b"]" * 200 + b"}"]
)
def test_lists_in_lists_in_lists(backend: Backend, defects: Defects, path: str, body: bytes) -> None:
    assert backend.client.post(path, data=body).status_code == 400
    assert defects.told == []


@pytest.mark.parametrize("path", POSTED)
def test_a_body_larger_than_any_that_label_studio_sends(backend: Backend, path: str) -> None:
    most = backend.app.config["MAX_CONTENT_LENGTH"]
    answer = backend.client.post(path, environ_overrides={"CONTENT_LENGTH": str(most + 1)})
    assert answer.status_code == 413
