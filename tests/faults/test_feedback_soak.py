"""Whatever happens to the feedback path, at the end all that Label Studio holds is learned from or set aside."""

import json
import random
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import requests

from tests.builders.processes import free_port, wait_for
from tests.faults.backend import PATIENCE_S, PROJECT, Backend, Json, kill_model, running_with_studio, submitted
from tests.faults.hosts import Answer, document, good, hosting, missing

LONG_S, SHORT_S = 600.0, 20.0
METHODS = ("merge", "ncut")
NOON = datetime(2026, 11, 20, 12, tzinfo=timezone.utc)
ODD: list[Callable[[Json], object]] = [
    lambda event: event["annotation"].update(updated_at="soon"),
    lambda event: event["annotation"].pop("updated_at"),
    lambda event: event["annotation"].update(result=[3, None, {"value": []}, {"type": "brushlabels", "value": {}}]),
    lambda event: event["annotation"]["result"][0]["value"].update(rle=[255] * 40),
    lambda event: event["task"].update(data=["no", "data"]),
    lambda event: event["task"]["data"].update(photo="/gone/1.png"),
    lambda event: event["task"]["data"].update(photo=17),
]


class Studio:
    """A Label Studio with one task for each annotation; its clock is off by `offset_s` seconds."""

    def __init__(self, chance: random.Random) -> None:
        self.held: dict[int, Json] = {}
        self.offset_s = 0.0
        self._chance, self._ticks, self._next = chance, 0, 1

    def answers(self) -> dict[str, Answer]:
        """Return the answers of its API at this moment."""
        return {
            "/data/upload": good,
            "/gone": missing,
            "/api/tasks": lambda handler: document(self._documents(handler.path))(handler),
            "/api/predictions": document([]),
            f"/api/projects/{PROJECT}/import/predictions": document({"created": 1}),
            f"/api/projects/{PROJECT}/": document({"id": int(PROJECT), "created_at": "1970-01-01T00:00:01Z"}),
        }

    def act(self) -> Json:
        """Annotate, change or delete something, and return the event."""
        kind = self._chance.random()
        if self.held and kind < 0.1:
            annotation_id = self._chance.choice(sorted(self.held))
            del self.held[annotation_id]
            return {"action": "ANNOTATIONS_DELETED", "annotations": [{"id": annotation_id}], "project": {"id": 7}}
        if self.held and kind < 0.3:
            return self._submit(self._chance.choice(sorted(self.held)), "ANNOTATION_UPDATED")
        self._next += 1
        return self._submit(self._next, "ANNOTATION_CREATED")

    def _submit(self, annotation_id: int, action: str) -> Json:
        number = annotation_id % 9
        event = submitted(annotation_id, f"/data/upload/1/{number}.png", size=(30, 40 + number)) | {"action": action}
        self._ticks += 1
        event["annotation"]["updated_at"] = (NOON + timedelta(seconds=self._ticks + self.offset_s)).isoformat()
        if self._chance.random() < 0.2:
            self._chance.choice(ODD)(event)
        self.held[annotation_id] = event
        return event

    def _documents(self, path: str) -> object:
        """Return the annotations of a task, or a page of the project's tasks: those behind the last one."""
        parts = urlsplit(path)
        if "annotations" in parts.path:
            event = self.held.get(int(parts.path.split("/")[3]))
            return [event["annotation"]] if event else []
        behind = json.loads(parse_qs(parts.query)["query"][0])["filters"]["items"][-1]["value"]
        tasks = [event["task"] for annotation_id, event in sorted(self.held.items()) if annotation_id > behind][:20]
        return {"tasks": tasks, "total": len(self.held), "total_annotations": 1, "total_predictions": 0}


@contextmanager
def killed(backend: Backend, chance: random.Random) -> Iterator[None]:
    """Kill the backend, and start it with any model and method."""
    backend.kill()
    backend.environment["WALKCUT_METHOD"] = chance.choice(METHODS)
    yield
    backend.start()


@contextmanager
def without_model(backend: Backend, _chance: random.Random) -> Iterator[None]:
    """Kill the model's process."""
    kill_model(backend)
    yield


def locked(backend: Backend, _chance: random.Random) -> AbstractContextManager[None]:
    """Lock the database for a while."""
    return backend.locked()


FAULTS: list[Callable[[Backend, random.Random], AbstractContextManager[None]]] = [killed, without_model, locked]


def _missed(backend: Backend, studio: Studio) -> dict[str, object]:
    """Return what is wrong with what is learned: nothing, if each annotation is learned from now or set aside."""
    with backend.open_store() as store:
        known = set(store.annotations.known(PROJECT))
        feedback = {row["annotation_id"]: row for row, _ in store.annotations.all_feedback(PROJECT)}
        aside = {item.annotation_id for item in store.annotations.list_set_aside(PROJECT) if item.problem}
    learned = {annotation_id: row["updated_at"] for annotation_id, row in feedback.items()}
    versions = {row["segmenter_version"] for annotation_id, row in feedback.items() if annotation_id not in aside}
    lost = [
        annotation_id
        for annotation_id, event in studio.held.items()
        if annotation_id not in aside and learned.get(annotation_id) != event["annotation"].get("updated_at")
    ]
    faults = {"lost": lost, "gone but known": known - studio.held.keys(), "segmenters": [*versions][1:]}
    return {name: annotations for name, annotations in faults.items() if annotations}


def _disturb(backend: Backend, studio: Studio, chance: random.Random, port: int) -> None:
    """Have annotators work through one fault, or none."""
    with ExitStack() as faults:
        if chance.random() < 0.6:
            faults.enter_context(hosting(studio.answers(), port))
        if chance.random() < 0.6:
            faults.enter_context(chance.choice(FAULTS)(backend, chance))
        studio.offset_s = chance.choice([0, 0, 20, 3600])
        for _ in range(chance.randrange(1, 6)):
            with suppress(requests.RequestException):
                requests.post(f"{backend.url}/webhook", json=studio.act(), timeout=PATIENCE_S)
            time.sleep(chance.uniform(0, 0.5))


def survive(folder: Path, seed: int, seconds: float) -> None:
    chance, port, end = random.Random(seed), free_port(), time.monotonic() + seconds
    studio = Studio(chance)
    with running_with_studio(folder, port, sync_interval=2) as backend:
        while time.monotonic() < end:
            _disturb(backend, studio, chance, port)
        with hosting(studio.answers(), port):
            with suppress(TimeoutError):
                wait_for("all to be learned from", lambda: not _missed(backend, studio), 10 * PATIENCE_S)
            assert _missed(backend, studio) == {}
        assert "Traceback" not in backend.log
    assert len(studio.held) > seconds / 10


def test_seconds_of_faults_lose_no_annotation(tmp_path: Path) -> None:
    survive(tmp_path, 0, SHORT_S)


@pytest.mark.soak
@pytest.mark.parametrize("seed", [1, 2])
def test_ten_minutes_of_faults_lose_no_annotation(tmp_path: Path, seed: int) -> None:
    survive(tmp_path, seed, LONG_S)
