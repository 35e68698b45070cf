"""The worker learns from each annotation once it can, and none keeps another from being learned from."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
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
    Event,
    FakeLabelStudio,
    annotation,
    created,
    deliver,
    task,
)
from tests.builders.models import make_predictor
from walkcut.errors import BusyError, ImageFetchError, LabelStudioError, RequestError, StoreError
from walkcut.hierarchy.granularity import Level
from walkcut.inference.predictor import Predictor
from walkcut.inference.project import Project
from walkcut.labelstudio.shapes import rle
from walkcut.labelstudio.tasks import Task
from walkcut.learning.feedback import AnnotationFeedback
from walkcut.serving.feedback_worker import FeedbackWorker, SyncResult
from walkcut.serving.project_cache import ProjectCache
from walkcut.storage import Backlog, ProjectStore

DAY_S = 86400.0
NOTHING_LEFT = Backlog(pending=0, set_aside=0)


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
def worker(predictor: Predictor, store: ProjectStore, studio: FakeLabelStudio) -> FeedbackWorker:
    return FeedbackWorker(predictor, store, studio)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time of day, in seconds, which stands still unless a test changes it."""
    now = [1_700_000_000.0]
    monkeypatch.setattr("walkcut.serving.feedback_worker.time.time", lambda: now[0])
    return now


@pytest.fixture
def failures(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> dict[int, Exception]:
    """The error that is raised instead of returning the tree of a task's image, by the task's id."""
    tree, errors = predictor.get_tree, dict[int, Exception]()

    def get_tree(reference: str, task_id: int) -> object:
        if task_id in errors:
            raise errors[task_id]
        return tree(reference, task_id)

    monkeypatch.setattr(predictor, "get_tree", get_tree)
    return errors


def learned_from(store: ProjectStore) -> list[AnnotationFeedback]:
    """Return the enabled feedback of project 3."""
    return [AnnotationFeedback.from_json(document) for document in store.annotations.feedback("3")]


def learned_ids(store: ProjectStore) -> list[int]:
    return [feedback.annotation_id for feedback in learned_from(store)]


def test_feedback_of_a_submitted_annotation_is_saved(worker: FeedbackWorker, store: ProjectStore) -> None:
    quarters_drawn = [("Car", LEFT & TOP), ("Region", RIGHT & TOP), ("Region", LEFT & ~TOP), ("Region", RIGHT & ~TOP)]
    deliver(store, created(5, *quarters_drawn, parent_prediction=7))
    assert worker.learn_due() == 1
    (feedback,) = learned_from(store)
    assert (feedback.annotation_id, feedback.task_id, feedback.source_model_version) == (5, 1, "fine 000000")
    assert feedback.labels == {"Car"}  # a generic label has no examples
    assert max(feedback.covering_scores.values()) > 0.9
    assert store.annotations.backlog() == NOTHING_LEFT


@pytest.mark.parametrize("name", ["Automobile", "car"])
def test_an_alias_and_its_value_are_one_label(worker: FeedbackWorker, store: ProjectStore, name: str) -> None:
    store.save_setup("3", CONFIG.replace('value="Car"', 'value="Automobile" alias="car"'), {})
    deliver(store, created(5, (name, LEFT), ("Region", RIGHT)))
    worker.learn_due()
    assert learned_from(store)[0].labels == {"car"}


def test_regions_on_other_images_are_named_in_the_log(
    worker: FeedbackWorker, store: ProjectStore, caplog: pytest.LogCaptureFixture
) -> None:
    event = created(5, *HALVES)
    polygon = {"points": [[1, 1], [9, 1], [9, 9]], "polygonlabels": ["Car"]}
    event.body["annotation"]["result"] += [
        {"id": "p", "from_name": "poly", "to_name": "front", "type": "polygonlabels", "value": polygon}
    ]
    deliver(store, event)
    worker.learn_due()
    assert "annotation 5: regions of poly are not learned from, as they are on no image of the lab" in caplog.text
    assert learned_ids(store) == [5]


def test_regions_that_cannot_be_read_are_named_in_the_log(
    worker: FeedbackWorker, store: ProjectStore, caplog: pytest.LogCaptureFixture
) -> None:
    event = created(5, *HALVES)
    event.body["annotation"]["result"] += [
        event.body["annotation"]["result"][0] | {"id": name, "value": {"rle": rle, "brushlabels": ["Car"]}}
        for name, rle in (("x", [256]), ("y", "text"), ("z", [1, 2]))
    ]
    deliver(store, event)
    worker.learn_due()
    assert "annotation 5: 3 regions cannot be read and are not learned from, the first: region x: " in caplog.text
    assert learned_ids(store) == [5]


def test_an_image_that_fails_is_named_and_the_others_are_learned_from(
    worker: FeedbackWorker, store: ProjectStore, clock: list[float]
) -> None:
    second = '<Image name="back" value="$back"/><BrushLabels name="b2" toName="back"><Label value="Car"/></BrushLabels>'
    store.save_setup("3", CONFIG.replace("</View>", f"{second}</View>"), {})
    on_back = {"id": "r9", "type": "brushlabels", "from_name": "b2", "to_name": "back", "value": {"rle": [0]}}
    for annotation_id, extra in ((5, []), (6, [on_back])):
        event = created(annotation_id, *HALVES)
        event.body["annotation"]["result"] += extra
        deliver(store, event)
    worker.learn_due()
    assert learned_ids(store) == [5, 6]
    (aside,) = store.annotations.list_set_aside("3")
    assert (aside.annotation_id, aside.problem.startswith("task 1 has no image: data.back is missing")) == (6, True)


def test_the_labelling_config_may_be_that_of_the_event(predictor: Predictor, tmp_path: Path) -> None:
    fresh, event = ProjectStore(tmp_path / "fresh"), created(5, *HALVES)
    deliver(fresh, event._replace(body=event.body | {"project": {"id": 3, "label_config": CONFIG}}))
    FeedbackWorker(predictor, fresh).learn_due()
    assert learned_ids(fresh) == [5]
    fresh.close()


def test_without_a_labelling_config_the_reason_says_so(predictor: Predictor, tmp_path: Path) -> None:
    with closing(ProjectStore(tmp_path / "fresh")) as fresh:
        deliver(fresh, created(5, *HALVES))
        FeedbackWorker(predictor, fresh).learn_due()
        (aside,) = fresh.annotations.list_set_aside("3")
    assert aside.problem.startswith("the labelling config of project 3 is not known: open the project in Label Studio")


def test_the_source_prediction_may_be_unknown(worker: FeedbackWorker, store: ProjectStore) -> None:
    deliver(store, created(5, *HALVES, parent_prediction=8))
    worker.learn_due()
    assert [feedback.source_model_version for feedback in learned_from(store)] == [""]


def test_the_same_event_twice_is_learned_from_once(worker: FeedbackWorker, store: ProjectStore) -> None:
    deliver(store, created(5, *HALVES), created(5, *HALVES))
    assert worker.learn_due() == 1
    deliver(store, created(5, *HALVES))
    assert worker.learn_due() == 0
    assert learned_ids(store) == [5]


def test_feedback_is_that_of_an_annotations_latest_state(worker: FeedbackWorker, store: ProjectStore) -> None:
    for event in (created(5, *HALVES), created(5, ("Sky", TOP), updated=LATER)._replace(action="ANNOTATION_UPDATED")):
        deliver(store, event)
        worker.learn_due()
    (feedback,) = learned_from(store)
    assert feedback.labels == {"Sky"}


GONE = [
    Event("ANNOTATIONS_DELETED", "3", {"annotations": [{"id": 5}]}),
    Event("TASKS_DELETED", "3", {"tasks": [{"id": 1}]}),
    created(5, *HALVES, was_cancelled=True, updated=LATER),
]


@pytest.mark.parametrize("gone", GONE)
def test_feedback_of_deleted_or_skipped_annotations_is_deleted(
    worker: FeedbackWorker, store: ProjectStore, gone: Event
) -> None:
    deliver(store, created(5, *HALVES), created(6, *HALVES, task_id=2))
    worker.learn_due()
    deliver(store, gone)
    assert learned_ids(store) == [6]


@pytest.mark.parametrize("gone", GONE)
def test_an_annotation_that_is_deleted_before_it_is_learned_from_stays_deleted(
    worker: FeedbackWorker, store: ProjectStore, gone: Event
) -> None:
    deliver(store, created(5, *HALVES), created(6, *HALVES, task_id=2), gone)
    assert worker.learn_due() == 1
    assert learned_ids(store) == [6]


@pytest.mark.parametrize("gone", GONE)
def test_an_annotation_that_is_deleted_while_it_is_learned_from_stays_deleted(
    worker: FeedbackWorker, predictor: Predictor, store: ProjectStore, gone: Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = predictor.get_tree

    def get_tree(reference: str, task_id: int) -> object:
        deliver(store, gone)
        return tree(reference, task_id)

    monkeypatch.setattr(predictor, "get_tree", get_tree)
    deliver(store, created(5, *HALVES))
    worker.learn_due()
    assert store.annotations.known("3") == {}
    assert learned_from(store) == []


@pytest.mark.parametrize(
    ("error", "retried"), [(ImageFetchError("gone"), 2), (BusyError("busy"), 2), (ValueError("odd"), DAY_S)]
)
def test_an_annotation_that_cannot_be_learned_from_stops_no_other(
    worker: FeedbackWorker,
    store: ProjectStore,
    clock: list[float],
    failures: dict[int, Exception],
    error: Exception,
    retried: float,
) -> None:
    failures[1] = error
    deliver(store, created(5, *HALVES), created(6, *HALVES, task_id=2))
    assert worker.learn_due() == 2
    assert learned_ids(store) == [6]
    assert worker.backlog == Backlog(pending=0, set_aside=1)
    (aside,) = store.annotations.list_set_aside("3")
    assert (aside.annotation_id, aside.task_id, aside.attempts, aside.due) == (5, 1, 1, clock[0] + retried)
    assert str(error) in aside.problem
    failures.clear()
    assert worker.learn_due() == 0, "it is not due yet"
    clock[0] += retried
    assert worker.learn_due() == 1
    assert (learned_ids(store), store.annotations.backlog()) == ([5, 6], NOTHING_LEFT)


def test_an_annotation_that_was_set_aside_is_tried_at_once_when_it_changes(
    worker: FeedbackWorker, store: ProjectStore, clock: list[float], failures: dict[int, Exception]
) -> None:
    failures[1] = ValueError("odd")
    deliver(store, created(5, *HALVES))
    worker.learn_due()
    failures.clear()
    deliver(store, created(5, *HALVES, updated=LATER))
    assert worker.learn_due() == 1
    assert (learned_ids(store), store.annotations.backlog()) == ([5], NOTHING_LEFT)


def test_an_unavailable_image_is_tried_often_for_a_day_and_then_daily(
    worker: FeedbackWorker,
    store: ProjectStore,
    clock: list[float],
    failures: dict[int, Exception],
    caplog: pytest.LogCaptureFixture,
) -> None:
    failures[1], begin, tries = ImageFetchError("deleted"), clock[0], list[float]()
    deliver(store, created(5, *HALVES))
    while clock[0] - begin < 4 * DAY_S:
        tries.append(clock[0] - begin)
        assert worker.learn_due() == 1
        clock[0] = store.annotations.list_set_aside("3")[0].due or 0
    pauses = np.diff(tries)
    assert pauses[:5].tolist() == [2, 4, 8, 16, 32]
    assert 0.9 * DAY_S < pauses[pauses < DAY_S].sum() < 1.1 * DAY_S
    assert set(pauses[-2:]) == {DAY_S}
    assert [record.message.partition(",")[0] for record in caplog.records if record.levelname == "WARNING"] == [
        "annotation 5 in project 3 is set aside"
    ]


def test_a_clock_that_is_put_back_delays_no_annotation_for_long(
    worker: FeedbackWorker, store: ProjectStore, clock: list[float], failures: dict[int, Exception]
) -> None:
    failures[1] = ImageFetchError("down")
    deliver(store, created(5, *HALVES))
    worker.learn_due()
    failures.clear()
    clock[0] -= 365 * DAY_S
    assert worker.learn_due() == 1
    assert learned_ids(store) == [5]


def test_an_attempt_that_ends_the_process_is_not_repeated_at_once(
    worker: FeedbackWorker, store: ProjectStore, clock: list[float], failures: dict[int, Exception]
) -> None:
    failures[1] = KeyboardInterrupt("as if the process were killed")  # type: ignore[assignment]
    deliver(store, created(5, *HALVES))
    for pause in (2, 4):
        with pytest.raises(KeyboardInterrupt):
            worker.learn_due()
        assert worker.learn_due() == 0
        clock[0] += pause
    failures.clear()
    assert worker.learn_due() == 1
    assert learned_ids(store) == [5]


@pytest.mark.parametrize("odd", [{"updated_at": "soon"}, {"updated_at": None}])
def test_an_annotation_that_cannot_be_read_is_set_aside_until_label_studio_has_another(
    worker: FeedbackWorker, store: ProjectStore, studio: FakeLabelStudio, odd: dict[str, Any]
) -> None:
    event = created(5, *HALVES)
    deliver(store, event._replace(body=event.body | {"annotation": annotation(5, *HALVES) | odd}))
    assert worker.learn_due() == 0
    (aside,) = store.annotations.list_set_aside("3")
    assert (aside.annotation_id, aside.due, "is not a time" in aside.problem) == (5, None, True)
    studio.held = [(task(), annotation(5, *HALVES))]
    assert worker.sync("3") == SyncResult(learned=1)
    assert (learned_ids(store), store.annotations.backlog()) == ([5], NOTHING_LEFT)


def test_another_segmenter_learns_everything_again(
    store: ProjectStore, predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deliver(store, *(created(number, *HALVES, task_id=number) for number in (1, 2, 3)))
    FeedbackWorker(predictor, store).learn_due()
    store.annotations.disable("3", 3)
    other = make_predictor(tmp_path / "other", preset="ncut")
    assert other.tree_service.version != predictor.tree_service.version
    assert ProjectCache(other, store).get("3", CONFIG).profile.labels == ()
    runs(FeedbackWorker(other, store), monkeypatch, lambda: len(learned_ids(store)) == 2 and not pending(store))
    assert ProjectCache(other, store).get("3", CONFIG).profile.labels == ("Car",)
    assert {feedback.segmenter_version for feedback in learned_from(store)} == {other.tree_service.version}


def pending(store: ProjectStore) -> int:
    return store.annotations.backlog().pending


def runs(worker: FeedbackWorker, monkeypatch: pytest.MonkeyPatch, done: Callable[[], bool]) -> None:
    """Run a worker until `done`, for at most a minute."""
    for module in ("feedback_worker", "synchronizer"):
        monkeypatch.setattr(f"walkcut.serving.{module}._IDLE_S", 0.01)
    stop = threading.Event()
    sync = partial(worker.synchronizer.run, stop, 3600.0, learning=True)
    threads = [threading.Thread(target=target) for target in (sync, partial(worker.run, stop))]
    for thread in threads:
        thread.start()
    end = time.monotonic() + 60
    while not done() and time.monotonic() < end:
        stop.wait(0.05)
    stop.set()
    for thread in threads:
        thread.join(30)
    assert done()


def test_an_annotation_outlives_a_short_failure_of_the_database(
    worker: FeedbackWorker, store: ProjectStore, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object) -> None:
        raise StoreError("database is locked")

    deliver(store, created(5, *HALVES))
    with monkeypatch.context() as failing:
        failing.setattr(store.annotations, "save_feedback", fail)
        with pytest.raises(StoreError, match="locked"):
            worker.learn_due()
    clock[0] += 2
    assert worker.learn_due() == 1
    assert learned_ids(store) == [5]


def test_learned_values_reach_the_project_and_its_version(
    worker: FeedbackWorker, predictor: Predictor, store: ProjectStore
) -> None:
    projects = ProjectCache(predictor, store)
    plain = projects.get("3", CONFIG)
    deliver(store, created(1, *HALVES, task_id=1))
    worker.learn_due()
    once = projects.get("3", CONFIG)
    assert once.options == plain.options  # one image decides no granularity
    assert predictor.version(once, Level.FINE) != predictor.version(plain, Level.FINE)
    deliver(store, created(2, *HALVES, task_id=2))
    worker.learn_due()
    processed = projects.get("3", CONFIG)
    assert processed.options.granularity == processed.profile.granularity != plain.options.granularity
    assert processed.profile.labels == ("Car",)
    assert labels_predicted(predictor, processed) == {"Region"}, "two images decide no label"
    deliver(store, *(created(number, *HALVES, task_id=number) for number in range(3, 10)))
    worker.learn_due()
    result = predictor.predict(Task(99, {"photo": IMAGE}), projects.get("3", CONFIG))[-1].result
    named = {item["value"]["brushlabels"][0]: item for item in result}
    assert named["Car"]["score"] == 0.9
    assert "confidence 0.90" in named["Car"]["meta"]["text"][0]


def labels_predicted(predictor: Predictor, project: Project) -> set[str]:
    """Return the labels in a prediction for a new task."""
    result = predictor.predict(Task(99, {"photo": IMAGE}), project)[-1].result
    return {item["value"]["brushlabels"][0] for item in result}


def test_a_control_gets_no_label_that_it_does_not_have(
    worker: FeedbackWorker, predictor: Predictor, store: ProjectStore
) -> None:
    deliver(store, *(created(number, *HALVES, task_id=number) for number in range(9)))
    worker.learn_due()
    processed = ProjectCache(predictor, store).get("3", CONFIG)
    image_tag = processed.image_tags[0]
    controls = (replace(image_tag.controls[0], labels=("Region", "Sky")),)
    fewer = replace(processed, image_tags=(replace(image_tag, controls=controls),))
    labels = [labels_predicted(predictor, project) for project in (processed, fewer)]
    assert labels == [{"Region", "Car"}, {"Region"}]


def test_disabled_feedback_and_learning_switched_off_change_it_back(
    worker: FeedbackWorker, predictor: Predictor, store: ProjectStore
) -> None:
    projects = ProjectCache(predictor, store)
    plain = projects.get("3", CONFIG)
    deliver(store, *(created(number, *HALVES, task_id=number) for number in (1, 2)))
    worker.learn_due()
    processed = projects.get("3", CONFIG)
    store.set_learning("3", enabled=False)
    assert projects.get("3", CONFIG) == plain != processed
    deliver(store, created(3, *HALVES, task_id=3))
    assert worker.learn_due() == 0
    store.set_learning("3", enabled=True)
    assert projects.get("3", CONFIG).profile.digest == processed.profile.digest
    assert worker.learn_due() == 1, "what came meanwhile is learned from now"
    store.annotations.reset("3")
    assert projects.get("3", CONFIG) == plain


def test_no_project_learns_if_learning_is_switched_off(
    worker: FeedbackWorker, predictor: Predictor, store: ProjectStore
) -> None:
    deliver(store, *(created(number, *HALVES, task_id=number) for number in (1, 2)))
    worker.learn_due()
    assert ProjectCache(predictor, store, learning=False).get("3", CONFIG).profile.labels == ()


def test_a_sync_makes_up_for_lost_webhooks(
    worker: FeedbackWorker, store: ProjectStore, studio: FakeLabelStudio
) -> None:
    deliver(store, created(1, *HALVES), created(2, *HALVES))
    worker.learn_due()
    studio.held = [
        (task(), annotation(2, *HALVES)),  # known
        (task(), annotation(3, *HALVES)),  # lost
        (task(4), annotation(4, *HALVES, was_cancelled=True)),
        ({"id": 5, "data": {}}, annotation(5, *HALVES)),  # cannot be learned from
        (task(), annotation(6, *HALVES, updated="soon")),  # cannot be read
    ]
    assert worker.sync("3") == SyncResult(learned=1, forgotten=1, failed=2)
    assert learned_ids(store) == [2, 3]
    assert [item.annotation_id for item in store.annotations.list_set_aside("3")] == [5, 6]
    studio.held[0] = (task(), annotation(2, ("Sky", TOP), updated=LATER))
    worker.sync("3")
    assert learned_from(store)[0].labels == {"Sky"}


def test_a_sync_takes_what_label_studio_holds_even_if_its_clock_was_put_back(
    worker: FeedbackWorker, store: ProjectStore, studio: FakeLabelStudio
) -> None:
    deliver(store, created(1, *HALVES, updated=LATER))
    worker.learn_due()
    studio.held = [(task(), annotation(1, ("Sky", TOP)))]
    assert worker.sync("3") == SyncResult(learned=1)
    assert learned_from(store)[0].labels == {"Sky"}


def test_a_sync_leaves_disabled_feedback_disabled(
    worker: FeedbackWorker, store: ProjectStore, studio: FakeLabelStudio
) -> None:
    deliver(store, created(1, *HALVES))
    worker.learn_due()
    store.annotations.disable("3", 1)
    studio.held = [(task(), annotation(1, *HALVES))]
    assert worker.sync("3") == SyncResult()
    assert learned_from(store) == []


def synchronizes_once(worker: FeedbackWorker, monkeypatch: pytest.MonkeyPatch, *, learning: bool) -> None:
    stop = threading.Event()
    monkeypatch.setattr(stop, "wait", lambda _seconds: stop.set())
    worker.synchronizer.run(stop, 3600.0, learning=learning)


@pytest.mark.parametrize("gone", [None, {"was_cancelled": True}])
@pytest.mark.parametrize("switched_off", ["project", "everything"])
def test_a_sync_forgets_also_while_learning_is_off(
    worker: FeedbackWorker,
    store: ProjectStore,
    studio: FakeLabelStudio,
    monkeypatch: pytest.MonkeyPatch,
    switched_off: str,
    gone: dict[str, Any] | None,
) -> None:
    deliver(store, created(1, *HALVES), created(2, *HALVES))
    worker.learn_due()
    if switched_off == "project":
        store.set_learning("3", enabled=False)
    studio.held = [(task(), annotation(2, *HALVES, updated=LATER)), (task(), annotation(3, *HALVES))]
    studio.held += [(task(), annotation(1, *HALVES, **gone))] if gone else []
    synchronizes_once(worker, monkeypatch, learning=switched_off == "project")
    assert list(store.annotations.known("3")) == [2]
    assert learned_from(store)[0].updated_at.startswith("2026-11-20T12"), "nothing new is learned"


def test_a_sync_in_which_an_id_cannot_be_read_forgets_nothing(
    worker: FeedbackWorker, store: ProjectStore, studio: FakeLabelStudio
) -> None:
    deliver(store, created(1, *HALVES), created(2, *HALVES))
    worker.learn_due()
    studio.held = [(task(), annotation(2, *HALVES)), (task(), {"id": "one"}), (task(), annotation(3, *HALVES))]
    assert worker.sync("3") == SyncResult(learned=1, forgotten=0, failed=1)
    assert learned_ids(store) == [1, 2, 3]


def test_an_interrupted_sync_forgets_nothing(
    worker: FeedbackWorker, store: ProjectStore, studio: FakeLabelStudio
) -> None:
    deliver(store, created(1, *HALVES), created(2, *HALVES))
    stop = threading.Event()
    stop.set()
    studio.held = [(task(), annotation(1, *HALVES))]
    assert worker.synchronizer.fetch("3", stop=stop).deleted == 0
    assert list(store.annotations.known("3")) == [1, 2]


def test_a_sync_with_another_label_studio_changes_nothing(
    worker: FeedbackWorker, store: ProjectStore, studio: FakeLabelStudio
) -> None:
    studio.created_at = 1795163936
    studio.held = [(task(), annotation(1, *HALVES))]
    assert worker.sync("3") == SyncResult(learned=1)
    studio.created_at, studio.held = 1795163999, []
    with pytest.raises(RequestError, match="project 3 is another one"):
        worker.sync("3")
    assert learned_ids(store) == [1]


def test_a_sync_needs_label_studio(predictor: Predictor, store: ProjectStore) -> None:
    with pytest.raises(LabelStudioError, match="set LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY"):
        FeedbackWorker(predictor, store).sync("3")


def stroke(rows: slice, columns: slice) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[rows, columns] = True
    return mask


def test_strokes_merge_the_segments_that_they_touch(
    worker: FeedbackWorker, store: ProjectStore, studio: FakeLabelStudio
) -> None:
    strokes = ("Car", stroke(slice(2, 4), slice(2, 20))), ("Sky", stroke(slice(30, 33), slice(40, 50)))
    deliver(store, created(5, *strokes))
    worker.learn_due()
    (offered,) = studio.predicted
    assert (offered["task"], offered["model_version"]) == (1, "merged 5")
    masks: dict[str, list[np.ndarray]] = {}
    for item in offered["result"]:
        masks.setdefault(item["value"]["brushlabels"][0], []).append(rle.decode(item["value"]["rle"], SIZE))
    (car,), (sky,) = masks["Car"], masks["Sky"]
    for folded, (_, drawn), quarter in zip((car, sky), strokes, (LEFT & TOP, RIGHT & ~TOP), strict=True):
        assert folded[drawn].all()
        assert folded.sum() > 4 * drawn.sum()
        assert (folded & quarter).sum() > 0.99 * folded.sum()
    everything = np.sum([mask for same_label in masks.values() for mask in same_label], axis=0)
    assert everything.max() == 1
    studio.predicted.clear()
    deliver(store, created(5, *strokes, updated=LATER))
    worker.learn_due()
    assert studio.predicted == []  # once for each annotation, even if it was deleted there


@pytest.mark.parametrize("arrived", [False, True])
def test_merged_segments_are_offered_once_label_studio_is_back_even_by_another_process(
    predictor: Predictor, store: ProjectStore, studio: FakeLabelStudio, clock: list[float], arrived: bool
) -> None:
    deliver(store, created(5, ("Car", stroke(slice(2, 4), slice(2, 20)))))
    studio.loses_answers = True
    FeedbackWorker(predictor, store, studio).learn_due()
    assert learned_ids(store) == [5], "the feedback does not wait"
    if not arrived:
        studio.predicted.clear()
    studio.loses_answers = False
    clock[0] += 2
    assert FeedbackWorker(predictor, store, studio).learn_due() == 1
    assert len(studio.predicted) == 1


def test_small_untouched_segments_are_not_offered(
    worker: FeedbackWorker, store: ProjectStore, studio: FakeLabelStudio
) -> None:
    store.save_setup("3", CONFIG.replace('toName="im"', 'toName="im" min_area="0.9"'), {})
    deliver(store, created(5, ("Car", stroke(slice(2, 4), slice(2, 20)))))
    worker.learn_due()
    assert [item["value"]["brushlabels"] for item in studio.predicted[0]["result"]] == [["Car"]]


@pytest.mark.parametrize("drawn", [HALVES, ()])
def test_nothing_is_offered_if_all_or_nothing_is_drawn(
    worker: FeedbackWorker, store: ProjectStore, studio: FakeLabelStudio, drawn: tuple[tuple[str, np.ndarray], ...]
) -> None:
    deliver(store, created(5, *drawn))
    worker.learn_due()
    assert studio.predicted == []


def test_it_runs_until_it_is_stopped(
    worker: FeedbackWorker, store: ProjectStore, studio: FakeLabelStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    studio.held = [(task(), annotation(1, *HALVES)), (task(2), annotation(2, *HALVES))]
    deliver(store, created(2, *HALVES, task_id=2))
    runs(worker, monkeypatch, lambda: learned_ids(store) == [1, 2] and not pending(store))


def test_one_odd_annotation_or_project_stops_no_learning(
    worker: FeedbackWorker, store: ProjectStore, studio: FakeLabelStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    def annotations(project_id: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        if project_id == "2":
            raise RecursionError("an odd project")
        yield task(), annotation(4, *HALVES, updated="soon")
        yield {"id": 5, "data": ["odd"]}, annotation(5, *HALVES)
        yield task(6), annotation(6, *HALVES)

    store.save_setup("2", CONFIG, {})
    monkeypatch.setattr(studio, "annotations", annotations)
    deliver(store, created(7, *HALVES)._replace(project_id="1"))
    runs(worker, monkeypatch, lambda: learned_ids(store) == [6] and not pending(store))
    assert [item.annotation_id for item in store.annotations.list_set_aside("3")] == [4, 5]
    assert len(store.annotations.feedback("1")) == 1


def test_an_annotation_that_cannot_be_saved_stops_no_sync(
    worker: FeedbackWorker, store: ProjectStore, studio: FakeLabelStudio
) -> None:
    nested: list[Any] = []
    for _ in range(5000):
        nested = [nested]
    studio.held = [
        (task(), annotation(4, *HALVES) | {"result": nested}),
        (task(5), annotation(5, *HALVES)),
    ]
    assert worker.sync("3") == SyncResult(learned=1, failed=1)
    assert learned_ids(store) == [5]
    (aside,) = store.annotations.list_set_aside("3")
    assert (aside.annotation_id, "recursion" in aside.problem) == (4, True)


def test_it_resumes_after_a_failure_of_the_database(
    worker: FeedbackWorker,
    store: ProjectStore,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("walkcut.serving.feedback_worker._IDLE_S", 0.01)
    caplog.set_level("INFO")
    stop = threading.Event()
    answers: list[Exception | None] = [StoreError("disk is full"), KeyError("a bug"), None]

    def next_attempt(*_arguments: object) -> None:
        if answer := answers.pop(0):
            raise answer
        stop.set()
        answers.append(None)

    monkeypatch.setattr(store.annotations, "next_attempt", next_attempt)
    worker.run(stop)
    full, bug, again = caplog.records
    assert full.message == "learning is interrupted, and resumes in 0 s: disk is full"
    assert (full.exc_info, again.message) == (None, "learning has resumed")
    assert bug.exc_info, "a bug is logged with its traceback"


def syncs(
    worker: FeedbackWorker,
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
            worker.synchronizer.request()
        if now[0] > 4000:
            stop.set()
        return stop.is_set()

    monkeypatch.setattr("walkcut.serving.synchronizer.time.monotonic", lambda: now[0])
    monkeypatch.setattr(studio, "annotations", annotations)
    monkeypatch.setattr(stop, "wait", wait)
    worker.synchronizer.run(stop, interval, learning=True)
    return synced


def test_a_failed_sync_is_repeated_soon_and_then_less_often(
    worker: FeedbackWorker, studio: FakeLabelStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert syncs(worker, studio, monkeypatch, failures=3) == [0, 60, 180, 420]


def test_a_project_that_is_gone_does_not_have_the_others_fetched_every_minute(
    worker: FeedbackWorker, store: ProjectStore, studio: FakeLabelStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, stop, fetched = [0.0], threading.Event(), list[str]()

    def annotations(project_id: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        fetched.append(project_id)
        if project_id == "2":
            raise LabelStudioError("it was deleted")
        yield from ()

    def wait(seconds: float) -> bool:
        now[0] += seconds
        if now[0] > 600:
            stop.set()
        return stop.is_set()

    store.save_setup("2", CONFIG, {})
    monkeypatch.setattr("walkcut.serving.synchronizer.time.monotonic", lambda: now[0])
    monkeypatch.setattr(studio, "annotations", annotations)
    monkeypatch.setattr(stop, "wait", wait)
    worker.synchronizer.run(stop, 3600.0, learning=True)
    assert (fetched.count("2"), fetched.count("3")) == (4, 1)


def test_a_project_that_is_new_to_the_database_is_synced_at_once(
    worker: FeedbackWorker, store: ProjectStore, studio: FakeLabelStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop, synced = threading.Event(), list[str]()
    steps: list[Callable[[], object]] = [lambda: store.save_setup("4", CONFIG, {}), lambda: store.forget("3")]
    steps += [lambda: None, lambda: store.save_setup("3", CONFIG, {}), lambda: None, stop.set]

    def annotations(project: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        synced.append(project)
        return iter(())

    monkeypatch.setattr(studio, "annotations", annotations)
    monkeypatch.setattr(stop, "wait", lambda _seconds: steps.pop(0)())
    worker.synchronizer.run(stop, 3600.0, learning=True)
    assert synced == ["3", "4", "3"], "it was lost with the database"


def test_a_lost_webhook_is_made_up_for_within_a_minute(
    worker: FeedbackWorker, studio: FakeLabelStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert syncs(worker, studio, monkeypatch, lost=[100, 120, 3750]) == [0, 160, 3760]


def test_without_syncs_none_follows_a_lost_webhook(
    worker: FeedbackWorker, studio: FakeLabelStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert syncs(worker, studio, monkeypatch, interval=0, lost=[100]) == []
