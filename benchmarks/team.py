"""A team at work, as Label Studio 1.23 reports it to a backend: who does what is drawn from a seed."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import requests

from benchmarks.annotators import click, typed
from benchmarks.responsiveness import CONFIG

NEW = 1000  # number of the first image that is seen for the first time
ANNOTATED, LISTED = "1", "2"  # the annotators' project, which learns, and the one whose predictions are retrieved
_LABEL_STUDIO_WAITS_S = 100.0
_ALWAYS = ("coarse", "medium", "fine", "auto")

Json = dict[str, Any]
Shown = tuple[str, ...]  # what is seen of an answer: masks, but not ids, which each task has


@dataclass(frozen=True)
class Call:
    """An answered request: its kind, its start (monotonic clock) and its seconds."""

    kind: str
    begin: float
    seconds: float


@dataclass
class Record:
    """What has happened; shared by all threads, which only append."""

    calls: list[Call] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    handed_back: Counter[str] = field(default_factory=Counter)
    submitted: list[int] = field(default_factory=list)
    predicted: list[int] = field(default_factory=list)


class Client:
    """Client that asks the backend as Label Studio does, on a new connection each time, and records the calls."""

    def __init__(self, url: str, record: Record) -> None:
        self._url, self._record = url, record

    def ask(self, kind: str, path: str, document: Json | None = None) -> Any:
        """Return the answer's document or text; `None` without an answer, which is recorded as lost."""
        begin = time.monotonic()
        try:
            method = "GET" if document is None else "POST"
            answer = requests.request(method, f"{self._url}{path}", json=document, timeout=_LABEL_STUDIO_WAITS_S)
        except requests.RequestException as error:
            self._record.lost.append(f"{kind}: {error}")
            return None
        self._record.calls.append(Call(kind, begin, time.monotonic() - begin))
        if not answer.ok:
            self._record.lost.append(f"{kind}: {answer.status_code} {answer.text[:200]}")
            return None
        return answer.json() if answer.headers["Content-Type"].startswith("application/json") else answer.text

    def set_up(self, project: str) -> None:
        """Send the set-up that precedes each call for predictions."""
        self.ask("health", "/health")
        self.ask("setup", "/setup", {"project": f"{project}.1", "schema": CONFIG, "hostname": "", "extra_params": None})

    def predict(self, kind: str, project: str, tasks: list[Json], context: Json | None = None) -> list[Any] | None:
        """Return the results of tasks; `None` if they are lost."""
        params = {"login": None, "password": None, "context": context}
        body = {"tasks": tasks, "project": f"{project}.1", "label_config": CONFIG, "params": params}
        answer = self.ask(kind, "/predict", body)
        if answer is not None and context is None:
            self._record.handed_back[kind] += sum(not predictions for predictions in answer["results"])
        return None if answer is None else answer["results"]

    def submit(self, number: int, task: Json, result: list[Json]) -> None:
        """Submit an annotation."""
        labels = [[("Region", "Background")[place % 2]] for place in range(len(result))]
        drawn = [
            item | {"value": item["value"] | {"brushlabels": label}} for item, label in zip(result, labels, strict=True)
        ]
        annotation = {
            "id": number,
            "result": drawn,
            "updated_at": "2026-11-20T12:00:00.000000Z",
            "was_cancelled": False,
        }
        project = {"id": int(ANNOTATED), "label_config": CONFIG}
        body = {"action": "ANNOTATION_CREATED", "task": task, "annotation": annotation, "project": project}
        if self.ask("webhook", "/webhook", body) is not None:
            self._record.submitted.append(number)


def script(image: int) -> list[tuple[str, Json]]:
    """Return what every annotator asks about an image, in order."""
    chance = random.Random(image)
    count, x, y = chance.choice(("6", "12", "20")), chance.uniform(10, 90), chance.uniform(10, 90)
    steps = [
        ("typed", typed(count)),
        ("typed", typed(count, "finer")),
        ("pointed", click("Finer", 1, x, y)),
        ("pointed", click("Select", 2, 100 - x, y)),
    ]
    if image % 4 == 0:
        steps.append(("boxed", _box(3, x / 2, y / 2)))
    return steps


def _box(number: int, x: float, y: float) -> Json:
    value = {"x": x, "y": y, "width": 25, "height": 25, "rotation": 0, "rectanglelabels": ["Re-segment"]}
    item = {"id": f"p{number}", "type": "rectanglelabels", "from_name": "box", "to_name": "image", "value": value}
    return {"result": [item | {"original_width": 640, "original_height": 480}]}


def task_of(number: int, host: str, image: int) -> Json:
    """Return a task with an image of the host."""
    return {"id": number, "data": {"image": f"{host}/{image}.jpg"}, "annotations": [], "predictions": []}


def shown(result: list[Json]) -> Shown:
    """Return the masks of an answer, without labels and statuses, which depend on what was learned meanwhile."""
    return tuple(str(item["value"]["rle"]) for item in result if "rle" in item["value"] and not item.get("dynamic"))


def predicted(predictions: list[Json]) -> dict[str, Shown]:
    """Return what is visible in predictions at the granularities that are always offered."""
    levels = {prediction["model_version"].partition(" ")[0]: shown(prediction["result"]) for prediction in predictions}
    return {level: levels[level] for level in _ALWAYS if level in levels}


def agrees(answer: Any, expected: Any) -> bool:
    """Return whether an answer is the expected one; of predictions at several levels, those that are in both count.

    A level is left out where another one has the same masks, as the one that was learned meanwhile may have.
    """
    if not isinstance(answer, dict):
        return bool(answer == expected)
    common = answer.keys() & expected.keys()
    return bool(common) and all(answer[level] == expected[level] for level in common)


def visit(client: Client, task: Json, image: int, pause: Callable[[], None]) -> Iterator[tuple[str, Any]]:
    """Open a task and ask its image's script; yield each question's name and the visible answer."""
    client.set_up(ANNOTATED)
    opened = client.predict("open", ANNOTATED, [task])
    if opened is not None and opened[0]:  # what is handed back while it is busy comes at the next opening
        yield f"{image} open", predicted(opened[0])
        task = task | {"predictions": opened[0]}  # Label Studio sends them along from now on
    drawn: list[Json] = []
    for place, (kind, context) in enumerate(script(image)):
        pause()
        if (answer := client.predict(kind, ANNOTATED, [task], context)) is not None:
            yield f"{image} {place} {kind}", shown(answer[0]["result"])
            if place == 1:
                drawn = [item for item in answer[0]["result"] if "rle" in item["value"]]
    pause()
    client.submit(task["id"], task | {"predictions": []}, drawn)
    client.predict("after submit", ANNOTATED, [task], {"result": []})


class Gate:
    """Gate that the team passes before each piece of work; while it is shut, running pieces end and others wait."""

    def __init__(self) -> None:
        self._changed, self._within, self._is_shut = threading.Condition(), 0, False

    @contextmanager
    def passing(self) -> Iterator[None]:
        """Wait for the open gate and do a piece of work."""
        with self._changed:
            self._changed.wait_for(lambda: not self._is_shut)
            self._within += 1
        try:
            yield
        finally:
            with self._changed:
                self._within -= 1
                self._changed.notify_all()

    @contextmanager
    def shut(self) -> Iterator[None]:
        """Shut the gate and wait for the running pieces; nobody works inside the block."""
        with self._changed:
            self._is_shut = True
            self._changed.wait_for(lambda: not self._within)
        try:
            yield
        finally:
            with self._changed:
                self._is_shut = False
                self._changed.notify_all()


@dataclass(frozen=True)
class Team:
    """Annotators, and one client that retrieves predictions, until `stop` is set; each piece of work passes the `gate`.

    `images` is the number of the host's images, `expected` the right answers about them, `page` the number of tasks in
    a request for predictions.
    """

    host: str
    images: int
    page: int
    record: Record
    expected: Mapping[str, Any]
    gate: Gate
    stop: threading.Event

    def annotate(self, client: Client, who: int, seconds_per_step: float) -> None:
        """Work as an annotator: one task after the other, with pauses to think."""
        chance, number = random.Random(who), 10_000 * (who + 1)

        def pause() -> None:
            self.stop.wait(chance.uniform(0.5, 1.5) * seconds_per_step)

        self.stop.wait(chance.uniform(0, 6 * seconds_per_step))  # nobody begins with all the others
        while not self.stop.is_set():
            image, number = chance.randrange(self.images), number + 1
            with self.gate.passing():
                for question, answer in visit(client, task_of(number, self.host, image), image, pause):
                    if not agrees(answer, self.expected[question]):
                        self.record.wrong.append(f"task {number}: {question}")

    def retrieve(self, client: Client) -> None:
        """Retrieve predictions page by page, half of them of new images; what was not predicted is asked again."""
        chance, fresh, first, waiting = random.Random(0), NEW, dict[int, list[Any]](), list[int]()
        while not self.stop.is_set():
            share = self.page // 4
            seen = chance.sample(range(self.images), min(self.images, share))
            seen += chance.sample(sorted(first), min(len(first), share))
            added = max(0, self.page - len(seen) - len(waiting))
            images = [*waiting, *seen, *range(fresh, fresh + added)]
            fresh += added
            tasks = [task_of(image + 1, self.host, image) for image in images]
            with self.gate.passing():
                client.set_up(LISTED)
                results = client.predict("batch", LISTED, tasks)
            if results is None:
                continue
            waiting = [image for image, predictions in zip(images, results, strict=True) if not predictions]
            for image, predictions in zip(images, results, strict=True):
                if predictions:
                    self.record.predicted.append(image)
                    if first.setdefault(image, predictions) != predictions:
                        self.record.wrong.append(f"batch: another answer for image {image}")
                    if image < self.images and not agrees(predicted(predictions), self.expected[f"{image} open"]):
                        self.record.wrong.append(f"batch: a wrong answer for image {image}")
