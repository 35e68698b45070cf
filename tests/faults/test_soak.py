"""The long forms: load for ten minutes, and all faults for minutes, one after the other as a seed has it."""

import random
import resource
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from benchmarks import load
from tests.builders.processes import free_port, wait_for
from tests.builders.scenes import data_url
from tests.faults.backend import (
    PATIENCE_S,
    PROJECT,
    Backend,
    kill_model,
    make_image,
    running,
    running_with_studio,
    submitted,
    submitting,
)
from tests.faults.hosts import dripping, good, half, hosting, label_studio, reset, silent
from walkcut.learning.feedback import AnnotationFeedback

pytestmark = pytest.mark.soak

CHAOS_S = 300.0
REFERENCES = [data_url(make_image(number)) for number in range(12)]


def test_ten_minutes_of_load() -> None:
    assert load.run(load.Load()).broken == []


def test_what_a_locked_database_refused_is_asked_for_soon(folder: Path) -> None:
    refused = submitted(5, "/data/upload/1/1.png", size=(30, 41))
    answers = label_studio([])
    with (
        hosting(answers) as studio,
        running(folder, LABEL_STUDIO_URL=studio.url, LABEL_STUDIO_API_KEY="0123456789abcdef" * 2) as backend,
        closing(sqlite3.connect(folder / "state" / "walkcut.sqlite3")) as other,
    ):
        backend.says("SyncResult(learned=0")
        other.execute("BEGIN IMMEDIATE")
        assert backend.post("/webhook", refused).status_code == 503
        other.rollback()
        answers |= label_studio([refused["annotation"]])
        backend.learns(5)


@contextmanager
def killed(backend: Backend) -> Iterator[None]:
    """A moment without a backend."""
    backend.kill()
    yield
    backend.start()


@contextmanager
def model_killed(backend: Backend) -> Iterator[None]:
    """A model that is gone."""
    kill_model(backend)
    yield


@contextmanager
def no_room(backend: Backend) -> Iterator[None]:
    """No file grows."""
    _, hard = resource.prlimit(backend.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(backend.pid, resource.RLIMIT_FSIZE, (1, hard))
    yield
    resource.prlimit(backend.pid, resource.RLIMIT_FSIZE, (hard, hard))


@contextmanager
def bad_hosts(backend: Backend) -> Iterator[None]:
    """Images that never come."""
    answers = {"/silent": silent, "/dripping": dripping, "/half": half, "/reset": reset, "/good": good}
    with hosting(answers) as host:
        results = backend.predict(*(f"{host.url}{path}1.png" for path in answers))
        assert [len(result) for result in results[:4]] == [0] * 4
        yield


FAULTS: list[Callable[[Backend], Any]] = [killed, model_killed, Backend.locked, no_room, bad_hosts]


def _predictions(backend: Backend) -> list[Any]:
    """All predictions, which may take several calls."""
    wait_for("all predictions", lambda: all(_predict(backend)), PATIENCE_S)
    return _predict(backend)


def _predict(backend: Backend) -> list[Any]:
    try:
        return backend.predict(*REFERENCES)
    except requests.RequestException:
        return [None]


def _feedback(backend: Backend) -> dict[int, AnnotationFeedback]:
    with backend.open_store() as store:
        rows = [AnnotationFeedback.from_json(document) for document, _ in store.annotations.all_feedback(PROJECT)]
        return {feedback.annotation_id: feedback for feedback in rows}


@pytest.mark.parametrize("seed", [1, 2])
def test_after_minutes_of_faults_all_is_as_without_them(tmp_path: Path, seed: int) -> None:
    chance, port, end = random.Random(seed), free_port(), time.monotonic() + CHAOS_S
    with running_with_studio(tmp_path / "disturbed", port, sync_interval=0) as backend:
        with submitting(backend) as acknowledged:
            while time.monotonic() < end:
                with ExitStack() as faults:
                    if chance.random() < 0.5:
                        faults.enter_context(hosting(label_studio([]), port))
                    faults.enter_context(chance.choice(FAULTS)(backend))
                    time.sleep(chance.uniform(0, 3))
                time.sleep(chance.uniform(0, 3))
        with hosting(label_studio([]), port):
            wait_for("all feedback", lambda: _feedback(backend).keys() >= set(acknowledged), 10 * PATIENCE_S)
            disturbed, feedback = _predictions(backend), _feedback(backend)
    with running_with_studio(tmp_path / "quiet", port, sync_interval=0) as backend, hosting(label_studio([]), port):
        for number in feedback:
            assert backend.submit(number).ok
        wait_for("all feedback", lambda: _feedback(backend).keys() == feedback.keys(), 10 * PATIENCE_S)
        assert _feedback(backend) == feedback
        assert _predictions(backend) == disturbed
    assert len(acknowledged) > 100
    with closing(sqlite3.connect(tmp_path / "disturbed" / "state.sqlite3")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
