import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.builders.feedback import (
    CONFIG,
    HALVES,
    IMAGE,
    LATER,
    LEFT,
    RIGHT,
    SIZE,
    TOP,
    FakeLabelStudio,
    annotation,
    created,
    task,
)
from tests.builders.models import make_predictor
from tests.builders.scenes import data_url
from walkcut.errors import BusyError, ImageFetchError, LabelStudioError, StoreError, WalkcutError
from walkcut.hierarchy.granularity import Level
from walkcut.inference.predictor import Predictor
from walkcut.labelstudio import brush
from walkcut.labelstudio.tasks import Task
from walkcut.learning.feedback import AnnotationFeedback
from walkcut.serving.feedback_worker import FeedbackWorker, SyncResult
from walkcut.storage import Event, FeedbackRow, ProjectStore


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ProjectStore]:
    store = ProjectStore(tmp_path)
    store.save_setup("3", CONFIG, {})
    yield store
    store.close()


@pytest.fixture
def predictor(tmp_path: Path) -> Predictor:
    return make_predictor(tmp_path / "trees")


@pytest.fixture
def studio() -> FakeLabelStudio:
    return FakeLabelStudio()


@pytest.fixture
def feedback_worker(predictor: Predictor, store: ProjectStore, studio: FakeLabelStudio) -> FeedbackWorker:
    return FeedbackWorker(predictor, store, studio)


def learned_from(store: ProjectStore) -> list[AnnotationFeedback]:
    """Return the enabled feedback of project 3."""
    return [AnnotationFeedback.from_json(document) for document in store.feedback("3")]


def test_feedback_of_a_submitted_annotation_is_saved(feedback_worker: FeedbackWorker, store: ProjectStore) -> None:
    quarters_drawn = [("Car", LEFT & TOP), ("Region", RIGHT & TOP), ("Region", LEFT & ~TOP), ("Region", RIGHT & ~TOP)]
    store.enqueue(created(5, *quarters_drawn, parent_prediction=7))
    assert feedback_worker.process_pending() == 1
    (feedback,) = learned_from(store)
    assert (feedback.annotation_id, feedback.task_id, feedback.source_model_version) == (5, 1, "fine-walkcut-merge-0")
    assert {example.label for example in feedback.examples} == {"Car"}  # a generic label has no examples
    assert max(feedback.covering_scores.values()) > 0.9
    assert store.pending_ids() == []


def test_the_labelling_config_is_that_of_the_event(predictor: Predictor, tmp_path: Path) -> None:
    fresh = ProjectStore(tmp_path / "fresh")
    event = created(5, *HALVES)
    FeedbackWorker(predictor, fresh).process(
        replace(event, body=event.body | {"project": {"id": 3, "label_config": CONFIG}})
    )
    assert len(fresh.feedback("3")) == 1
    fresh.close()


def test_the_source_prediction_may_be_unknown(feedback_worker: FeedbackWorker, store: ProjectStore) -> None:
    feedback_worker.process(created(5, *HALVES, parent_prediction=8))
    assert [feedback.source_model_version for feedback in learned_from(store)] == [""]


def test_the_same_event_twice_changes_nothing(feedback_worker: FeedbackWorker, store: ProjectStore) -> None:
    for _ in range(2):
        feedback_worker.process(created(5, *HALVES))
    assert len(learned_from(store)) == 1


def test_feedback_is_that_of_an_annotations_latest_state(feedback_worker: FeedbackWorker, store: ProjectStore) -> None:
    feedback_worker.process(created(5, *HALVES))
    feedback_worker.process(replace(created(5, ("Sky", TOP), updated=LATER), action="ANNOTATION_UPDATED"))
    (feedback,) = learned_from(store)
    assert {example.label for example in feedback.examples} == {"Sky"}


@pytest.mark.parametrize(
    "event",
    [
        Event("ANNOTATIONS_DELETED", "3", {"annotations": [{"id": 5}]}),
        Event("TASKS_DELETED", "3", {"tasks": [{"id": 1}]}),
        created(5, *HALVES, was_cancelled=True),
    ],
)
def test_feedback_of_deleted_or_skipped_annotations_is_deleted(
    feedback_worker: FeedbackWorker, store: ProjectStore, event: Event
) -> None:
    feedback_worker.process(created(5, *HALVES))
    feedback_worker.process(created(6, *HALVES, task_id=2))
    feedback_worker.process(event)
    assert [feedback.annotation_id for feedback in learned_from(store)] == [6]


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
def test_unusable_events_are_logged_and_done(
    feedback_worker: FeedbackWorker, store: ProjectStore, caplog: pytest.LogCaptureFixture, body: dict[str, Any]
) -> None:
    store.enqueue(Event("ANNOTATION_CREATED", "3", body))
    assert feedback_worker.process_pending() == 1
    assert "ANNOTATION_CREATED in project 3 not learned from" in caplog.text
    assert learned_from(store) == []


def test_an_event_whose_image_cannot_be_fetched_is_tried_again(
    feedback_worker: FeedbackWorker, predictor: Predictor, store: ProjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("walkcut.serving.feedback_worker.time.monotonic", lambda: now[0])
    tree, tries = predictor.get_tree, []

    def away(reference: str, task_id: int) -> object:
        tries.append(now[0])
        if len(tries) < 4:
            raise ImageFetchError("Label Studio is down")
        return tree(reference, task_id)

    monkeypatch.setattr(predictor, "get_tree", away)
    store.enqueue(created(5, *HALVES))
    store.enqueue(created(6, *HALVES))
    while store.pending_ids() and now[0] < 600:
        feedback_worker.process_pending()
        now[0] += 1
    assert len(learned_from(store)) == 2
    assert tries[-1] >= 6


def test_an_event_is_tried_for_a_day_and_then_given_up(
    feedback_worker: FeedbackWorker,
    predictor: Predictor,
    store: ProjectStore,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    now, day = [0.0], 24 * 3600
    monkeypatch.setattr("walkcut.serving.feedback_worker.time.monotonic", lambda: now[0])

    def away(reference: str, task_id: int) -> object:
        raise ImageFetchError("deleted")

    monkeypatch.setattr(predictor, "get_tree", away)
    store.enqueue(created(5, *HALVES))
    while store.pending_ids() and now[0] < 2 * day:
        feedback_worker.process_pending()
        now[0] += 60
    assert store.pending_ids() == []
    assert 0.8 * day < now[0] < 1.2 * day
    assert [record.message.partition(": ")[0] for record in caplog.records] == [
        "ANNOTATION_CREATED in project 3 not learned from; retrying for a day",
        "ANNOTATION_CREATED in project 3 not learned from",
    ]


@pytest.fixture
def away(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> list[WalkcutError]:
    """Raise the first of these errors, if any, instead of returning a tree."""
    tree, errors = predictor.get_tree, list[WalkcutError]()

    def perhaps(reference: str, task_id: int) -> object:
        if errors:
            raise errors[0]
        return tree(reference, task_id)

    monkeypatch.setattr(predictor, "get_tree", perhaps)
    return errors


def test_waiting_events_do_not_block_others(
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


def test_no_feedback_is_lost_while_the_model_is_busy(
    feedback_worker: FeedbackWorker, store: ProjectStore, away: list[WalkcutError], monkeypatch: pytest.MonkeyPatch
) -> None:
    away.append(BusyError("the model is being reloaded"))
    store.enqueue(created(5, *HALVES))
    assert feedback_worker.process_pending() == 0
    away.clear()
    later = time.monotonic() + 60
    monkeypatch.setattr("walkcut.serving.feedback_worker.time.monotonic", lambda: later)
    assert feedback_worker.process_pending() == 1
    assert len(learned_from(store)) == 1


@pytest.mark.parametrize(
    "later",
    [
        Event("ANNOTATIONS_DELETED", "3", {"annotations": [{"id": 5}]}),
        Event("TASKS_DELETED", "3", {"tasks": [{"id": 1}]}),
        created(5, *HALVES, was_cancelled=True, updated=LATER),
    ],
)
def test_deleted_feedback_does_not_come_back_with_a_waiting_event(
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
    monkeypatch.setattr("walkcut.serving.feedback_worker.time.monotonic", lambda: now)
    assert feedback_worker.process_pending() == 1
    assert [feedback.annotation_id for feedback in learned_from(store)] == [6]
    assert store.pending_ids() == []


def test_an_event_outlives_a_short_failure_of_the_database(
    feedback_worker: FeedbackWorker, store: ProjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, failures = store.save_feedback, [StoreError("database is locked")]

    def perhaps(row: FeedbackRow) -> None:
        if failures:
            raise failures.pop()
        save(row)

    monkeypatch.setattr(store, "save_feedback", perhaps)
    store.enqueue(created(5, *HALVES))
    with pytest.raises(StoreError, match="locked"):
        feedback_worker.process_pending()
    assert feedback_worker.process_pending() == 1
    assert len(learned_from(store)) == 1


def test_learned_values_reach_the_project_and_its_version(
    feedback_worker: FeedbackWorker, predictor: Predictor, store: ProjectStore
) -> None:
    plain = feedback_worker.project("3", CONFIG, {})
    feedback_worker.process(created(1, *HALVES, task_id=1))
    once = feedback_worker.project("3", CONFIG, {})
    assert once.options == plain.options  # one image decides no granularity
    assert predictor.version(once, Level.FINE) != predictor.version(plain, Level.FINE)
    feedback_worker.process(created(2, *HALVES, task_id=2))
    processed = feedback_worker.project("3", CONFIG, {})
    assert processed.options.granularity == processed.profile.granularity != plain.options.granularity
    assert processed.profile.labels == ("Car",)
    result = predictor.predict(Task(9, {"photo": IMAGE}), processed)[-1].result
    named = {item["value"]["brushlabels"][0]: item for item in result}
    assert named["Car"]["score"] >= 0.5
    assert "confidence" in named["Car"]["meta"]["text"][0]


def test_a_control_gets_no_label_that_it_does_not_have(feedback_worker: FeedbackWorker, predictor: Predictor) -> None:
    feedback_worker.process(created(1, *HALVES))
    processed = feedback_worker.project("3", CONFIG, {})
    fewer = replace(processed, controls=(replace(processed.controls[0], labels=("Region", "Sky")),))
    labels = [
        {item["value"]["brushlabels"][0] for item in predictor.predict(Task(9, {"photo": IMAGE}), project)[-1].result}
        for project in (processed, fewer)
    ]
    assert labels == [{"Region", "Car"}, {"Region"}]


def test_disabled_feedback_and_learning_switched_off_change_it_back(
    feedback_worker: FeedbackWorker, store: ProjectStore
) -> None:
    plain = feedback_worker.project("3", CONFIG, {})
    for number in (1, 2):
        feedback_worker.process(created(number, *HALVES, task_id=number))
    processed = feedback_worker.project("3", CONFIG, {})
    store.set_learning("3", enabled=False)
    assert feedback_worker.project("3", CONFIG, {}) == plain != processed
    feedback_worker.process(created(3, *HALVES, task_id=3))
    assert len(learned_from(store)) == 2
    store.set_learning("3", enabled=True)
    assert feedback_worker.project("3", CONFIG, {}).profile.digest == processed.profile.digest
    store.reset("3")
    assert feedback_worker.project("3", CONFIG, {}) == plain


def test_no_project_learns_if_learning_is_switched_off(predictor: Predictor, store: ProjectStore) -> None:
    off = FeedbackWorker(predictor, store, enabled=False)
    off.process(created(5, *HALVES))
    assert store.all_feedback("3") == []


def test_a_sync_makes_up_for_lost_webhooks(
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
    assert [feedback.annotation_id for feedback in learned_from(store)] == [2, 3]
    studio.held[0] = (task(), annotation(2, ("Sky", TOP), updated=LATER))
    feedback_worker.sync("3")
    assert {example.label for example in learned_from(store)[0].examples} == {"Sky"}


def test_a_sync_leaves_disabled_feedback_disabled(
    feedback_worker: FeedbackWorker, store: ProjectStore, studio: FakeLabelStudio
) -> None:
    feedback_worker.process(created(1, *HALVES))
    store.disable_feedback("3", 1)
    studio.held = [(task(), annotation(1, *HALVES))]
    assert feedback_worker.sync("3") == SyncResult()
    assert learned_from(store) == []


def test_a_sync_needs_label_studio(predictor: Predictor, store: ProjectStore) -> None:
    with pytest.raises(LabelStudioError, match="set LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY"):
        FeedbackWorker(predictor, store).sync("3")


def stroke(rows: slice, columns: slice) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[rows, columns] = True
    return mask


def test_strokes_merge_the_segments_that_they_touch(feedback_worker: FeedbackWorker, studio: FakeLabelStudio) -> None:
    strokes = ("Car", stroke(slice(2, 4), slice(2, 20))), ("Sky", stroke(slice(30, 33), slice(40, 50)))
    feedback_worker.process(created(5, *strokes))
    (offered,) = studio.predicted
    assert (offered["task"], offered["model_version"]) == (1, "folded-walkcut-5")
    masks: dict[str, list[np.ndarray]] = {}
    for item in offered["result"]:
        masks.setdefault(item["value"]["brushlabels"][0], []).append(brush.decode(item["value"]["rle"], SIZE))
    (car,), (sky,) = masks["Car"], masks["Sky"]
    for folded, (_, drawn), quarter in zip((car, sky), strokes, (LEFT & TOP, RIGHT & ~TOP), strict=True):
        assert folded[drawn].all()
        assert folded.sum() > 4 * drawn.sum()
        assert (folded & quarter).sum() > 0.99 * folded.sum()
    everything = np.sum([mask for same_label in masks.values() for mask in same_label], axis=0)
    assert everything.max() == 1
    studio.predicted.clear()
    feedback_worker.process(created(5, *strokes, updated=LATER))
    assert studio.predicted == []  # once for each annotation, even if it was deleted there


@pytest.mark.parametrize("arrived", [False, True])
def test_merged_segments_are_offered_once_label_studio_is_back(
    feedback_worker: FeedbackWorker,
    store: ProjectStore,
    studio: FakeLabelStudio,
    monkeypatch: pytest.MonkeyPatch,
    arrived: bool,
) -> None:
    store.enqueue(created(5, ("Car", stroke(slice(2, 4), slice(2, 20)))))
    studio.loses_answers = True
    assert feedback_worker.process_pending() == 0
    assert len(learned_from(store)) == 1, "the feedback does not wait"
    if not arrived:
        studio.predicted.clear()
    studio.loses_answers = False
    later = time.monotonic() + 60
    monkeypatch.setattr("walkcut.serving.feedback_worker.time.monotonic", lambda: later)
    assert feedback_worker.process_pending() == 1
    assert len(studio.predicted) == 1


def test_small_untouched_segments_are_not_offered(
    feedback_worker: FeedbackWorker, store: ProjectStore, studio: FakeLabelStudio
) -> None:
    store.save_setup("3", CONFIG.replace('toName="im"', 'toName="im" min_area="0.9"'), {})
    feedback_worker.process(created(5, ("Car", stroke(slice(2, 4), slice(2, 20)))))
    assert [item["value"]["brushlabels"] for item in studio.predicted[0]["result"]] == [["Car"]]


@pytest.mark.parametrize("drawn", [HALVES, ()])
def test_nothing_is_offered_if_all_or_nothing_is_drawn(
    feedback_worker: FeedbackWorker, studio: FakeLabelStudio, drawn: tuple[tuple[str, np.ndarray], ...]
) -> None:
    feedback_worker.process(created(5, *drawn))
    assert studio.predicted == []


def test_it_runs_until_it_is_stopped(
    feedback_worker: FeedbackWorker, store: ProjectStore, studio: FakeLabelStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("walkcut.serving.feedback_worker._IDLE_S", 0.01)
    studio.held = [(task(), annotation(1, *HALVES)), (task(2), annotation(2, *HALVES))]
    store.enqueue(created(2, *HALVES, task_id=2))
    stop = threading.Event()
    runner = threading.Thread(target=feedback_worker.run, args=(stop, 3600.0))
    runner.start()
    for _ in range(600):
        if len(learned_from(store)) == 2 and not store.pending_ids():
            break
        stop.wait(0.1)
    stop.set()
    runner.join(30)
    assert len(learned_from(store)) == 2


def test_it_resumes_after_a_failure_of_the_database(
    feedback_worker: FeedbackWorker,
    store: ProjectStore,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("walkcut.serving.feedback_worker._IDLE_S", 0.01)
    caplog.set_level("INFO")
    stop = threading.Event()
    answers: list[Exception | list[int]] = [StoreError("disk is full"), KeyError("a bug"), []]

    def pending() -> list[int]:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        stop.set()
        return answer

    monkeypatch.setattr(store, "pending_ids", pending)
    feedback_worker.run(stop, 0)
    full, bug, again = caplog.records
    assert full.message == "learning is interrupted, and resumes in 0 s: disk is full"
    assert (full.exc_info, again.message) == (None, "learning has resumed")
    assert bug.exc_info, "a bug is logged with its traceback"


def syncs(
    feedback_worker: FeedbackWorker,
    studio: FakeLabelStudio,
    monkeypatch: pytest.MonkeyPatch,
    *,
    interval: float = 3600.0,
    failures: int = 0,
    lost: Sequence[float] = (),
) -> list[int]:
    """Return when a worker syncs within 4000 s, if the first syncs fail and webhooks are lost at some moments."""
    now, stop, synced, losses = [0.0], threading.Event(), list[int](), list(lost)

    def annotations(project: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        synced.append(round(now[0]))
        if len(synced) <= failures:
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

    monkeypatch.setattr("walkcut.serving.feedback_worker.time.monotonic", lambda: now[0])
    monkeypatch.setattr(studio, "annotations", annotations)
    monkeypatch.setattr(stop, "wait", wait)
    feedback_worker.run(stop, interval)
    return synced


def test_a_failed_sync_is_repeated_soon(
    feedback_worker: FeedbackWorker, studio: FakeLabelStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert syncs(feedback_worker, studio, monkeypatch, failures=2) == [0, 60, 120, 3720]


def test_a_lost_webhook_is_made_up_for_within_a_minute(
    feedback_worker: FeedbackWorker, studio: FakeLabelStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert syncs(feedback_worker, studio, monkeypatch, lost=[100, 120, 3750]) == [0, 160, 3760]


def test_without_syncs_none_follows_a_lost_webhook(
    feedback_worker: FeedbackWorker, studio: FakeLabelStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert syncs(feedback_worker, studio, monkeypatch, interval=0, lost=[100]) == []
