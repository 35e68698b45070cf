import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.builders.scenes import data_url, png, quarters
from tests.inference.test_predictor import predictor
from walkcut.errors import BusyError, ImageFetchError, LabelStudioError, StoreError, WalkcutError
from walkcut.hierarchy.granularity import Level
from walkcut.inference.predictor import Predictor
from walkcut.labelstudio import Task, brush
from walkcut.labelstudio.client import LabelStudioClient
from walkcut.learning.examples import AnnotationFeedback
from walkcut.serving.feedback import FeedbackWorker, SyncResult
from walkcut.storage import Event, ProjectStore

SIZE = (40, 60)
IMAGE = data_url(png(quarters(*SIZE)))
LABELS = '<Label value="Region" neutral="true"/><Label value="Car"/><Label value="Sky"/>'
CONFIG = f'<View><Image name="im" value="$photo"/><BrushLabels name="b" toName="im">{LABELS}</BrushLabels></View>'
NOON, LATER = "2026-11-20T12:00:00.000000Z", "2026-11-20T13:00:00.000000Z"
LEFT, RIGHT, TOP = (np.zeros(SIZE, bool) for _ in range(3))
LEFT[:, :30], RIGHT[:, 30:], TOP[:20] = True, True, True


class FakeLabelStudio(LabelStudioClient):
    """A Label Studio that holds what it is told to."""

    def __init__(self) -> None:
        self.held: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self.bare: list[tuple[dict[str, Any], frozenset[str]]] = []
        self.given: list[Mapping[str, Any]] = []
        self.loses_answers = False

    def unannotated_tasks(self, project: str) -> Iterator[tuple[dict[str, Any], frozenset[str]]]:
        yield from self.bare

    def annotations(self, project: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        yield from self.held

    def label_config(self, project: str) -> str:
        return CONFIG

    def prediction_version(self, prediction: int) -> str:
        if prediction != 7:
            raise LabelStudioError("gone")
        return "fine-walkcut-merge-0"

    def predictions(self, task: int) -> dict[int, str]:
        return {number: each["model_version"] for number, each in enumerate(self.given) if each["task"] == task}

    def add_predictions(self, project: str, predictions: Sequence[Mapping[str, Any]]) -> None:
        self.given += predictions
        if self.loses_answers:
            raise LabelStudioError("it is down")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ProjectStore]:
    store = ProjectStore(tmp_path)
    store.save_setup("3", CONFIG, {})
    yield store
    store.close()


@pytest.fixture
def mine(tmp_path: Path) -> Predictor:
    return predictor(tmp_path / "trees")


@pytest.fixture
def studio() -> FakeLabelStudio:
    return FakeLabelStudio()


@pytest.fixture
def feedback_worker(mine: Predictor, store: ProjectStore, studio: FakeLabelStudio) -> FeedbackWorker:
    return FeedbackWorker(mine, store, studio)


def task(number: int = 1) -> dict[str, Any]:
    return {"id": number, "data": {"photo": IMAGE}}


def annotation(number: int, *drawn: tuple[str, np.ndarray], updated: str = NOON, **more: Any) -> dict[str, Any]:
    result = [
        {
            "id": f"r{place}",
            "type": "brushlabels",
            "from_name": "b",
            "to_name": "im",
            "value": {"rle": brush.encode(mask), "brushlabels": [label]},
        }
        for place, (label, mask) in enumerate(drawn)
    ]
    return {"id": number, "result": result, "updated_at": updated, "was_cancelled": False} | more


def created(number: int, *drawn: tuple[str, np.ndarray], task_id: int = 1, **more: Any) -> Event:
    body = {"task": task(task_id), "annotation": annotation(number, *drawn, **more)}
    return Event("ANNOTATION_CREATED", "3", body)


HALVES = (("Car", LEFT), ("Region", RIGHT))


def test_a_submitted_annotation_becomes_a_lesson(feedback_worker: FeedbackWorker, store: ProjectStore) -> None:
    quarters_drawn = [("Car", LEFT & TOP), ("Region", RIGHT & TOP), ("Region", LEFT & ~TOP), ("Region", RIGHT & ~TOP)]
    store.enqueue(created(5, *quarters_drawn, parent_prediction=7))
    assert feedback_worker.process_pending() == 1
    (lesson,) = store.feedback("3")
    assert (lesson.annotation, lesson.task, lesson.source_model_version) == (5, 1, "fine-walkcut-merge-0")
    assert {example.label for example in lesson.examples} == {"Car"}  # a neutral label teaches no look
    assert max(lesson.covering_scores.values()) > 0.9
    assert store.pending_ids() == []


def test_the_labelling_config_is_the_one_that_the_event_tells(mine: Predictor, tmp_path: Path) -> None:
    fresh = ProjectStore(tmp_path / "fresh")
    event = created(5, *HALVES)
    FeedbackWorker(mine, fresh).process(
        replace(event, body=event.body | {"project": {"id": 3, "label_config": CONFIG}})
    )
    assert len(fresh.feedback("3")) == 1
    fresh.close()


def test_what_was_taken_may_be_unknown(feedback_worker: FeedbackWorker, store: ProjectStore) -> None:
    feedback_worker.process(created(5, *HALVES, parent_prediction=8))
    assert [lesson.source_model_version for lesson in store.feedback("3")] == [""]


def test_the_same_event_twice_is_one_lesson(feedback_worker: FeedbackWorker, store: ProjectStore) -> None:
    for _ in range(2):
        feedback_worker.process(created(5, *HALVES))
    assert len(store.feedback("3")) == 1


def test_a_changed_annotation_teaches_what_it_is_now(feedback_worker: FeedbackWorker, store: ProjectStore) -> None:
    feedback_worker.process(created(5, *HALVES))
    feedback_worker.process(replace(created(5, ("Sky", TOP), updated=LATER), action="ANNOTATION_UPDATED"))
    (lesson,) = store.feedback("3")
    assert {example.label for example in lesson.examples} == {"Sky"}


@pytest.mark.parametrize(
    "event",
    [
        Event("ANNOTATIONS_DELETED", "3", {"annotations": [{"id": 5}]}),
        Event("TASKS_DELETED", "3", {"tasks": [{"id": 1}]}),
        created(5, *HALVES, was_cancelled=True),
    ],
)
def test_what_is_deleted_or_skipped_is_forgotten(
    feedback_worker: FeedbackWorker, store: ProjectStore, event: Event
) -> None:
    feedback_worker.process(created(5, *HALVES))
    feedback_worker.process(created(6, *HALVES, task_id=2))
    feedback_worker.process(event)
    assert [lesson.annotation for lesson in store.feedback("3")] == [6]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"task": 3, "annotation": annotation(5)},
        {"task": task(), "annotation": annotation(5) | {"id": "x"}},
        {"task": task(), "annotation": annotation(5) | {"updated_at": "soon"}},
        {"task": {"id": 1, "data": {"photo": data_url(b"no image")}}, "annotation": annotation(5)},
    ],
)
def test_events_of_no_use_are_told_and_done_with(
    feedback_worker: FeedbackWorker, store: ProjectStore, caplog: pytest.LogCaptureFixture, body: dict[str, Any]
) -> None:
    store.enqueue(Event("ANNOTATION_CREATED", "3", body))
    assert feedback_worker.process_pending() == 1
    assert "nothing learned from ANNOTATION_CREATED in project 3" in caplog.text
    assert store.feedback("3") == []


def test_an_event_whose_image_cannot_be_had_is_tried_again(
    feedback_worker: FeedbackWorker, mine: Predictor, store: ProjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("walkcut.serving.feedback.time.monotonic", lambda: now[0])
    tree, tries = mine.get_tree, []

    def away(reference: str, task_id: int) -> object:
        tries.append(now[0])
        if len(tries) < 4:
            raise ImageFetchError("Label Studio is down")
        return tree(reference, task_id)

    monkeypatch.setattr(mine, "tree", away)
    store.enqueue(created(5, *HALVES))
    store.enqueue(created(6, *HALVES))
    while store.pending_ids() and now[0] < 600:
        feedback_worker.process_pending()
        now[0] += 1
    assert len(store.feedback("3")) == 2
    assert tries[-1] >= 6


def test_an_event_is_tried_for_a_day_and_then_given_up(
    feedback_worker: FeedbackWorker,
    mine: Predictor,
    store: ProjectStore,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    now, day = [0.0], 24 * 3600
    monkeypatch.setattr("walkcut.serving.feedback.time.monotonic", lambda: now[0])

    def away(reference: str, task_id: int) -> object:
        raise ImageFetchError("gone for good")

    monkeypatch.setattr(mine, "tree", away)
    store.enqueue(created(5, *HALVES))
    while store.pending_ids() and now[0] < 2 * day:
        feedback_worker.process_pending()
        now[0] += 60
    assert store.pending_ids() == []
    assert 0.8 * day < now[0] < 1.2 * day
    assert [enqueue.message.partition(" from")[0] for enqueue in caplog.records] == [
        "nothing learned yet",
        "nothing learned",
    ]


@pytest.fixture
def away(mine: Predictor, monkeypatch: pytest.MonkeyPatch) -> list[WalkcutError]:
    """While it holds an error, no tree can be had, because of that."""
    tree, errors = mine.get_tree, list[WalkcutError]()

    def perhaps(reference: str, task_id: int) -> object:
        if errors:
            raise errors[0]
        return tree(reference, task_id)

    monkeypatch.setattr(mine, "tree", perhaps)
    return errors


def test_many_events_that_wait_hold_up_no_others(
    feedback_worker: FeedbackWorker, store: ProjectStore, away: list[WalkcutError]
) -> None:
    away.append(ImageFetchError("down"))
    for number in range(40):
        store.enqueue(created(number, *HALVES))
    for _ in range(3):
        feedback_worker.process_pending()
    store.enqueue(Event("TASKS_CREATED", "3", {}))
    assert feedback_worker.process_pending() == 1
    assert len(store.pending_ids()) == 40


def test_a_model_that_is_busy_costs_no_lesson(
    feedback_worker: FeedbackWorker, store: ProjectStore, away: list[WalkcutError], monkeypatch: pytest.MonkeyPatch
) -> None:
    away.append(BusyError("the model's process starts anew"))
    store.enqueue(created(5, *HALVES))
    assert feedback_worker.process_pending() == 0
    away.clear()
    later = time.monotonic() + 60
    monkeypatch.setattr("walkcut.serving.feedback.time.monotonic", lambda: later)
    assert feedback_worker.process_pending() == 1
    assert len(store.feedback("3")) == 1


@pytest.mark.parametrize(
    "later",
    [
        Event("ANNOTATIONS_DELETED", "3", {"annotations": [{"id": 5}]}),
        Event("TASKS_DELETED", "3", {"tasks": [{"id": 1}]}),
        created(5, *HALVES, was_cancelled=True, updated=LATER),
    ],
)
def test_what_is_gone_does_not_come_back_with_an_event_that_waited(
    feedback_worker: FeedbackWorker,
    store: ProjectStore,
    away: list[WalkcutError],
    later: Event,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    away.append(ImageFetchError("down"))
    store.enqueue(created(5, *HALVES))
    store.enqueue(created(6, *HALVES, task_id=2))
    feedback_worker.process_pending()
    store.enqueue(later)
    feedback_worker.process_pending()
    away.clear()
    now = time.monotonic() + 60
    monkeypatch.setattr("walkcut.serving.feedback.time.monotonic", lambda: now)
    assert feedback_worker.process_pending() == 1
    assert [lesson.annotation for lesson in store.feedback("3")] == [6]
    assert store.pending_ids() == []


def test_an_event_outlives_a_database_that_is_away_for_a_moment(
    feedback_worker: FeedbackWorker, store: ProjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep, failures = store.save_feedback, [StoreError("database is locked")]

    def perhaps(lesson: AnnotationFeedback) -> None:
        if failures:
            raise failures.pop()
        keep(lesson)

    monkeypatch.setattr(store, "save_feedback", perhaps)
    store.enqueue(created(5, *HALVES))
    with pytest.raises(StoreError, match="locked"):
        feedback_worker.process_pending()
    assert feedback_worker.process_pending() == 1
    assert len(store.feedback("3")) == 1


def test_learned_values_reach_the_project_and_its_version(
    feedback_worker: FeedbackWorker, mine: Predictor, store: ProjectStore
) -> None:
    plain = feedback_worker.project("3", CONFIG, {})
    feedback_worker.process(created(1, *HALVES, task_id=1))
    once = feedback_worker.project("3", CONFIG, {})
    assert once.options == plain.options  # one image decides no granularity
    assert mine.version(once, Level.FINE) != mine.version(plain, Level.FINE)
    feedback_worker.process(created(2, *HALVES, task_id=2))
    processed = feedback_worker.project("3", CONFIG, {})
    assert processed.options.granularity == processed.profile.granularity != plain.options.granularity
    assert processed.profile.labels == ("Car",)
    found = mine.predict(Task(9, {"photo": IMAGE}), processed)[-1].result
    named = {item["value"]["brushlabels"][0]: item for item in found}
    assert named["Car"]["score"] >= 0.5
    assert "confidence" in named["Car"]["meta"]["text"][0]


def test_a_control_gets_no_label_that_it_does_not_have(feedback_worker: FeedbackWorker, mine: Predictor) -> None:
    feedback_worker.process(created(1, *HALVES))
    processed = feedback_worker.project("3", CONFIG, {})
    poorer = replace(processed, controls=(replace(processed.controls[0], labels=("Region", "Sky")),))
    labels = [
        {item["value"]["brushlabels"][0] for item in mine.predict(Task(9, {"photo": IMAGE}), project)[-1].result}
        for project in (processed, poorer)
    ]
    assert labels == [{"Region", "Car"}, {"Region"}]


def test_undone_lessons_and_learning_switched_off_change_it_back(
    feedback_worker: FeedbackWorker, store: ProjectStore
) -> None:
    plain = feedback_worker.project("3", CONFIG, {})
    for number in (1, 2):
        feedback_worker.process(created(number, *HALVES, task_id=number))
    processed = feedback_worker.project("3", CONFIG, {})
    store.set_learning("3", on=False)
    assert feedback_worker.project("3", CONFIG, {}) == plain != processed
    feedback_worker.process(created(3, *HALVES, task_id=3))
    assert len(store.feedback("3")) == 2
    store.set_learning("3", on=True)
    assert feedback_worker.project("3", CONFIG, {}).profile.digest == processed.profile.digest
    store.reset("3")
    assert feedback_worker.project("3", CONFIG, {}) == plain


def test_no_project_learns_where_that_is_switched_off(mine: Predictor, store: ProjectStore) -> None:
    off = FeedbackWorker(mine, store, enabled=False)
    off.process(created(5, *HALVES))
    assert store.all_feedback("3") == []


def test_lost_webhooks_are_made_up_for(
    feedback_worker: FeedbackWorker, store: ProjectStore, studio: FakeLabelStudio
) -> None:
    for number in (1, 2):
        feedback_worker.process(created(number, *HALVES))
    studio.held = [
        (task(), annotation(2, *HALVES)),  # known
        (task(), annotation(3, *HALVES)),  # lost
        (task(4), annotation(4, *HALVES, was_cancelled=True)),
        ({"id": 5, "data": {}}, annotation(5, *HALVES)),
    ]
    assert feedback_worker.sync("3") == SyncResult(learned=2, forgotten=1, failed=1)
    assert [lesson.annotation for lesson in store.feedback("3")] == [2, 3]
    studio.held[0] = (task(), annotation(2, ("Sky", TOP), updated=LATER))
    feedback_worker.sync("3")
    assert {example.label for example in store.feedback("3")[0].examples} == {"Sky"}


def test_what_was_undone_is_not_learned_again_by_comparing(
    feedback_worker: FeedbackWorker, store: ProjectStore, studio: FakeLabelStudio
) -> None:
    feedback_worker.process(created(1, *HALVES))
    store.disable_feedback("3", 1)
    studio.held = [(task(), annotation(1, *HALVES))]
    assert feedback_worker.sync("3") == SyncResult()
    assert store.feedback("3") == []


def test_nothing_can_be_compared_without_label_studio(mine: Predictor, store: ProjectStore) -> None:
    with pytest.raises(LabelStudioError, match="set LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY"):
        FeedbackWorker(mine, store).sync("3")


def stroke(rows: slice, columns: slice) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[rows, columns] = True
    return mask


def test_strokes_fold_the_segments_that_they_touch(feedback_worker: FeedbackWorker, studio: FakeLabelStudio) -> None:
    strokes = ("Car", stroke(slice(2, 4), slice(2, 20))), ("Sky", stroke(slice(30, 33), slice(40, 50)))
    feedback_worker.process(created(5, *strokes))
    (given,) = studio.given
    assert (given["task"], given["model_version"]) == (1, "folded-walkcut-5")
    masks: dict[str, list[np.ndarray]] = {}
    for item in given["result"]:
        masks.setdefault(item["value"]["brushlabels"][0], []).append(brush.decode(item["value"]["rle"], SIZE))
    (car,), (sky,) = masks["Car"], masks["Sky"]
    for folded, (_, drawn), quarter in zip((car, sky), strokes, (LEFT & TOP, RIGHT & ~TOP), strict=True):
        assert folded[drawn].all()
        assert folded.sum() > 4 * drawn.sum()
        assert (folded & quarter).sum() > 0.99 * folded.sum()
    everything = np.sum([mask for found in masks.values() for mask in found], axis=0)
    assert everything.max() == 1
    studio.given.clear()
    feedback_worker.process(created(5, *strokes, updated=LATER))
    assert studio.given == []  # once for each annotation, even if somebody has deleted it


@pytest.mark.parametrize("arrived", [False, True])
def test_what_is_folded_while_label_studio_is_away_is_given_once_it_is_back(
    feedback_worker: FeedbackWorker,
    store: ProjectStore,
    studio: FakeLabelStudio,
    monkeypatch: pytest.MonkeyPatch,
    arrived: bool,
) -> None:
    store.enqueue(created(5, ("Car", stroke(slice(2, 4), slice(2, 20)))))
    studio.loses_answers = True
    assert feedback_worker.process_pending() == 0
    assert len(store.feedback("3")) == 1, "the lesson does not wait"
    if not arrived:
        studio.given.clear()
    studio.loses_answers = False
    later = time.monotonic() + 60
    monkeypatch.setattr("walkcut.serving.feedback.time.monotonic", lambda: later)
    assert feedback_worker.process_pending() == 1
    assert len(studio.given) == 1


def test_small_segments_that_nobody_touched_are_left_out_of_what_is_folded(
    feedback_worker: FeedbackWorker, store: ProjectStore, studio: FakeLabelStudio
) -> None:
    store.save_setup("3", CONFIG.replace('toName="im"', 'toName="im" min_area="0.9"'), {})
    feedback_worker.process(created(5, ("Car", stroke(slice(2, 4), slice(2, 20)))))
    assert [item["value"]["brushlabels"] for item in studio.given[0]["result"]] == [["Car"]]


@pytest.mark.parametrize("drawn", [HALVES, ()])
def test_nothing_is_folded_where_all_is_drawn_or_nothing(
    feedback_worker: FeedbackWorker, studio: FakeLabelStudio, drawn: tuple[tuple[str, np.ndarray], ...]
) -> None:
    feedback_worker.process(created(5, *drawn))
    assert studio.given == []


def test_it_runs_until_told_to_stop(
    feedback_worker: FeedbackWorker, store: ProjectStore, studio: FakeLabelStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("walkcut.serving.feedback._IDLE_S", 0.01)
    studio.held = [(task(), annotation(1, *HALVES)), (task(2), annotation(2, *HALVES))]
    store.enqueue(created(2, *HALVES, task_id=2))
    stop = threading.Event()
    runner = threading.Thread(target=feedback_worker.run, args=(stop, 3600.0))
    runner.start()
    for _ in range(600):
        if len(store.feedback("3")) == 2 and not store.pending_ids():
            break
        stop.wait(0.1)
    stop.set()
    runner.join(30)
    assert len(store.feedback("3")) == 2


def test_it_goes_on_after_the_database_was_away(
    feedback_worker: FeedbackWorker,
    store: ProjectStore,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("walkcut.serving.feedback._IDLE_S", 0.01)
    caplog.set_level("INFO")
    stop = threading.Event()
    answers: list[Exception | list[int]] = [StoreError("disk is full"), KeyError("a defect"), []]

    def pending() -> list[int]:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        stop.set()
        return answer

    monkeypatch.setattr(store, "pending", pending)
    feedback_worker.run(stop, 0)
    full, defect, again = caplog.records
    assert full.message == "learning was interrupted and goes on in 0 s: disk is full"
    assert (full.exc_info, again.message) == (None, "learning goes on")
    assert defect.exc_info, "a defect is told in full"


def comparisons(
    feedback_worker: FeedbackWorker,
    studio: FakeLabelStudio,
    monkeypatch: pytest.MonkeyPatch,
    *,
    every: float = 3600.0,
    failures: int = 0,
    lost: Sequence[float] = (),
) -> list[int]:
    """When a learner compares within 4000 s, if the first of them fail, and webhooks are lost at some moments."""
    now, stop, asked, losses = [0.0], threading.Event(), list[int](), list(lost)

    def annotations(project: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        asked.append(round(now[0]))
        if len(asked) <= failures:
            raise LabelStudioError("it is down")
        yield from ()

    def wait(seconds: float) -> bool:
        now[0] += seconds
        if losses and now[0] >= losses[0]:
            losses.pop(0)
            feedback_worker.request_sync()
        if now[0] > 4000:
            stop.set()
        return stop.is_set()

    monkeypatch.setattr("walkcut.serving.feedback.time.monotonic", lambda: now[0])
    monkeypatch.setattr(studio, "annotations", annotations)
    monkeypatch.setattr(stop, "wait", wait)
    feedback_worker.run(stop, every)
    return asked


def test_a_comparison_that_failed_is_made_again_soon(
    feedback_worker: FeedbackWorker, studio: FakeLabelStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert comparisons(feedback_worker, studio, monkeypatch, failures=2) == [0, 60, 120, 3720]


def test_what_a_lost_webhook_told_is_asked_for_within_a_minute(
    feedback_worker: FeedbackWorker, studio: FakeLabelStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert comparisons(feedback_worker, studio, monkeypatch, lost=[100, 120, 3750]) == [0, 160, 3760]


def test_where_comparisons_are_off_none_follows_a_lost_webhook(
    feedback_worker: FeedbackWorker, studio: FakeLabelStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert comparisons(feedback_worker, studio, monkeypatch, every=0, lost=[100]) == []
