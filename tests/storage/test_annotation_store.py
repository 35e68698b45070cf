"""Annotations are learned from once in each state, whatever comes in between; on SQLite and PostgreSQL."""

import threading
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timezone
from time import perf_counter
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from walkcut.storage import AnnotationRow, Backlog, ProjectStore, annotation_store
from walkcut.storage.annotation_store import AnnotationStore
from walkcut.storage.tables import ANNOTATIONS

TIMES = [datetime(2026, 11, 20, 8, 38, 56 + half // 2, half % 2 * 500_000, timezone.utc) for half in range(4)]
NOW = 1_700_000_000.0
DAY_S = 86400.0


@pytest.fixture
def annotations(store: ProjectStore) -> AnnotationStore:
    return store.annotations


def row(
    annotation_id: int = 1, time: int = 0, *, project_id: str = "3", task_id: int = 2, text: str = ""
) -> AnnotationRow:
    document = {"annotation": annotation_id, "time": time, "text": text}
    return AnnotationRow(project_id, annotation_id, task_id, TIMES[time], document)


def document(saved: AnnotationRow, labels: Iterable[str] = ("Part",)) -> dict[str, Any]:
    return {**saved.submission, "labels": sorted(labels)}


def learn(annotations: AnnotationStore, *rows: AnnotationRow, labels: Collection[str] = ("Part",)) -> None:
    """Save annotations and their feedback."""
    for saved in rows:
        annotations.save(saved)
        annotations.save_feedback(saved, "v1", labels, document(saved, labels))
        annotations.finish(saved)


def attempts(annotations: AnnotationStore, now: float = NOW, pause: float = 60.0) -> list[AnnotationRow]:
    """Begin all attempts that are due."""
    begun = []
    while attempt := annotations.next_attempt(now, lambda _: pause):
        begun.append(attempt.row)
    return begun


def test_a_saved_annotation_comes_back_once_and_outlives_the_process(opened: Callable[[], ProjectStore]) -> None:
    rows = [row(2**40, text="é\0\ud800"), row(7), row(1, project_id="4")]
    first = opened()
    for saved in rows:
        first.annotations.save(saved)
    first.close()
    again = opened().annotations
    assert again.backlog() == Backlog(pending=3)
    assert attempts(again) == [rows[2], rows[1], rows[0]]
    assert attempts(again) == []


def test_an_attempt_that_does_not_end_comes_again_after_its_pause(annotations: AnnotationStore) -> None:
    annotations.save(row())
    pauses = []
    for now in (NOW, NOW + 59, NOW + 60, NOW + 120):
        attempt = annotations.next_attempt(now, lambda number: 60.0 * number)
        pauses.append(attempt.number if attempt else None)
    assert pauses == [1, None, 2, None]


def test_a_finished_annotation_comes_again_when_it_changes(annotations: AnnotationStore) -> None:
    annotations.save(row(time=1))
    (begun,) = attempts(annotations)
    annotations.finish(begun)
    for same in (row(time=1), row(time=0)):
        annotations.save(same)
        assert attempts(annotations) == []
    annotations.save(row(time=2))
    attempt = annotations.next_attempt(NOW, lambda _: 1.0)
    assert attempt is not None
    assert (attempt.row, attempt.number, attempt.is_offered) == (row(time=2), 1, True)


def test_label_studio_decides_which_state_of_an_annotation_counts(annotations: AnnotationStore) -> None:
    learn(annotations, row(time=2))
    annotations.disable("3", 1)
    annotations.replace(row(time=2))
    assert attempts(annotations) == []
    annotations.replace(row(time=1))
    assert attempts(annotations) == [row(time=1)]
    annotations.save_feedback(row(time=1), "v1", [], {"time": 1})
    assert annotations.all_feedback("3") == [({"time": 1}, False)]


@pytest.mark.parametrize("change", ["save", "delete"])
def test_what_was_learned_from_a_state_that_changed_meanwhile_is_dropped(
    annotations: AnnotationStore, change: str
) -> None:
    annotations.save(row())
    (begun,) = attempts(annotations)
    annotations.save(row(time=1)) if change == "save" else annotations.delete("3", {1})
    annotations.save_feedback(begun, "v1", ["Part"], {})
    annotations.postpone(begun, NOW + DAY_S, "odd")
    annotations.finish(begun)
    assert annotations.all_feedback("3") == []
    assert attempts(annotations) == ([row(time=1)] if change == "save" else [])


def test_annotations_that_were_set_aside_tell_why_and_come_again_when_due(annotations: AnnotationStore) -> None:
    for saved in (row(1), row(2), row(3, project_id="4")):
        annotations.save(saved)
    for begun in attempts(annotations):
        annotations.postpone(begun, NOW + DAY_S, "it is odd")
    annotations.save_unreadable("3", 9, 8, "it has no time")
    annotations.save_unreadable("3", 9, 8, "it has no time yet")
    first, _, unreadable = annotations.list_set_aside("3")
    assert (first.annotation_id, first.task_id, first.attempts, first.due, first.problem) == (
        1,
        2,
        1,
        NOW + DAY_S,
        "it is odd",
    )
    assert (unreadable.attempts, unreadable.due, unreadable.problem) == (2, None, "it has no time yet")
    assert (annotations.backlog(), annotations.backlog("4")) == (Backlog(0, 4), Backlog(0, 1))
    assert attempts(annotations, NOW + DAY_S - 1) == []
    annotations.retry("3")
    assert attempts(annotations) == [row(1), row(2)]
    assert attempts(annotations, NOW + DAY_S) == [row(1), row(2), row(3, project_id="4")]


def test_an_unreadable_document_leaves_what_was_learned(annotations: AnnotationStore) -> None:
    learn(annotations, row())
    annotations.save_unreadable("3", 1, 2, "odd")
    assert annotations.feedback("3") == [document(row())]
    annotations.save(row(time=1))
    assert annotations.list_set_aside("3") == []


@pytest.mark.parametrize("seconds", [3600.0, DAY_S, 3650 * DAY_S])
def test_an_attempt_does_not_wait_for_a_clock_that_was_put_back(annotations: AnnotationStore, seconds: float) -> None:
    annotations.save(row())
    assert attempts(annotations, NOW, 600.0) == [row()]
    assert attempts(annotations, NOW - 5, 600.0) == [], "clocks of two machines differ by seconds"
    assert attempts(annotations, NOW - seconds, 600.0) == [row()]
    assert attempts(annotations, NOW - seconds + 599, 600.0) == []


def test_projects_that_do_not_learn_wait(store: ProjectStore, annotations: AnnotationStore) -> None:
    store.set_learning("3", enabled=False)
    for saved in (row(1), row(1, project_id="4")):
        annotations.save(saved)
    assert attempts(annotations) == [row(1, project_id="4")]
    store.set_learning("3", enabled=True)
    assert attempts(annotations) == [row(1)]


def test_no_two_processes_make_the_same_attempt(opened: Callable[[], ProjectStore]) -> None:
    stores = [opened().annotations for _ in range(4)]
    for annotation_id in range(24):
        stores[0].save(row(annotation_id))
    with ThreadPoolExecutor(4) as pool:
        begun = [saved.annotation_id for found in pool.map(attempts, stores) for saved in found]
    assert sorted(begun) == list(range(24))


def test_another_segmenter_has_all_learned_again(annotations: AnnotationStore) -> None:
    learn(annotations, row(1), row(2))
    annotations.save(row(3))
    annotations.disable("3", 2)
    assert annotations.relearn("v1") == 0
    assert annotations.relearn("v2") == 2
    begun = attempts(annotations)
    assert [saved.annotation_id for saved in begun] == [1, 2, 3]
    for saved in begun:
        annotations.save_feedback(saved, "v2", ["Part"], document(saved))
        annotations.finish(saved)
    assert annotations.relearn("v2") == 0
    assert [disabled for _, disabled in annotations.all_feedback("3")] == [False, True, False]


def test_known_annotations_are_listed_until_they_are_deleted(annotations: AnnotationStore) -> None:
    learn(annotations, row(2, 2), row(1), row(3, project_id="4"), row(5, task_id=9))
    assert annotations.known("3") == {1: TIMES[0], 2: TIMES[2], 5: TIMES[0]}
    annotations.delete("3", set())
    annotations.delete("3", {1, 3, 4})
    annotations.delete_tasks("3", {9})
    assert (annotations.known("3"), annotations.known("4")) == ({2: TIMES[2]}, {3: TIMES[0]})
    assert len(annotations.feedback("3")) == 1


LABELS, SELDOM = st.sets(st.sampled_from("ABC")), st.sampled_from([False, False, False, True])
LABELLED = st.lists(st.tuples(st.sampled_from("3334"), LABELS, SELDOM), min_size=5, max_size=9)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(annotated=LABELLED)
def test_feedback_is_that_of_the_latest_annotations_and_of_the_latest_with_each_label(
    annotations: AnnotationStore, monkeypatch: pytest.MonkeyPatch, annotated: list[tuple[str, set[str], bool]]
) -> None:
    monkeypatch.setattr(annotation_store, "_MAX_LATEST", 2)
    monkeypatch.setattr(annotation_store, "_MAX_LATEST_PER_LABEL", 1)
    for project_id in "34":
        annotations.delete(project_id, range(9))
    for annotation_id, (project_id, labels, disabled) in enumerate(annotated):
        learn(annotations, row(annotation_id, 0, project_id=project_id), labels=["A", "B", "C"])
        learn(annotations, row(annotation_id, 1, project_id=project_id), labels=labels)
        if disabled:
            annotations.disable(project_id, annotation_id)
    valid = [
        (annotation_id, labels)
        for annotation_id, (project_id, labels, disabled) in enumerate(annotated)
        if project_id == "3" and not disabled
    ]
    of_labels = [[annotation_id for annotation_id, labels in valid if label in labels][-1:] for label in "ABC"]
    expected = {annotation_id for annotation_id, _ in valid[-2:]}.union(*of_labels)
    assert [found["annotation"] for found in annotations.feedback("3")] == sorted(expected)


@pytest.mark.parametrize("label", ["", "x" * 9000, "é\0\ud800", "%_'"])
def test_any_label_can_be_saved(annotations: AnnotationStore, label: str) -> None:
    learn(annotations, row(), labels=[label, "y", label])
    assert annotations.feedback("3") == [document(row(), [label, "y", label])]


def test_disabled_feedback_stays_disabled_until_its_annotation_changes(annotations: AnnotationStore) -> None:
    learn(annotations, row())
    assert annotations.disable("3", 1)
    assert not annotations.disable("3", 1), "disabled before"
    assert not annotations.disable("3", 2), "there is none"
    annotations.save_feedback(row(), "v2", [], {"again": True})
    assert annotations.feedback("3") == []
    assert annotations.all_feedback("3") == [({"again": True}, True)]
    annotations.save(row(time=1))
    assert annotations.feedback("3") == []
    learn(annotations, row(time=1))
    assert annotations.feedback("3") == [document(row(time=1))]


def test_reset_disables_the_feedback_of_one_project_also_what_waits(annotations: AnnotationStore) -> None:
    learn(annotations, row(1), row(2), row(3, project_id="4"))
    annotations.save(row(5))
    assert annotations.reset("3") == 2
    learn(annotations, row(5))
    assert (annotations.feedback("3"), len(annotations.all_feedback("3"))) == ([], 3)
    assert len(annotations.feedback("4")) == 1


STEPS = st.sampled_from(
    [("learn", 0), ("learn", 1), ("learn", 2), ("learn", 3), ("disable", 0), ("reset", 0), ("delete", 0)]
)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEPS, max_size=8))
def test_the_latest_state_of_an_annotation_counts_and_every_change_raises_the_revision(
    store: ProjectStore, steps: list[tuple[str, int]]
) -> None:
    annotations = store.annotations
    annotations.delete("3", {1})
    latest, disabled = -1, False
    for action, time in steps:
        before, revision = annotations.feedback("3"), store.revision("3")
        if action == "learn":
            learn(annotations, row(time=time))
            disabled = disabled and time <= latest
            latest = max(latest, time)
        elif action == "delete":
            annotations.delete("3", {1})
            latest, disabled = -1, False
        else:
            annotations.disable("3", 1) if action == "disable" else annotations.reset("3")
            disabled = latest >= 0
        expected = [(document(row(time=latest)), disabled)] if latest >= 0 else []
        assert annotations.all_feedback("3") == expected
        assert store.revision("3") > revision or annotations.feedback("3") == before


def test_the_revision_grows_when_an_older_annotation_is_learned_from_after_a_newer_one(store: ProjectStore) -> None:
    revisions = set()
    for saved in (row(5, 3), row(1, 0), replace(row(5, 3), annotation_id=2)):
        learn(store.annotations, saved)
        revisions.add(store.revision("3"))
    assert len(revisions) == 3
    assert store.revision("4") == 0


def test_writers_of_one_database_wait_for_each_other(opened: Callable[[], ProjectStore]) -> None:
    begun = threading.Barrier(6)

    def write(number: int) -> None:
        annotations = opened().annotations
        begun.wait(30)
        learn(annotations, row(number))
        annotations.disable("3", number)
        annotations.delete("3", {number + 100})

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(write, range(6)))
    assert [disabled for _, disabled in opened().annotations.all_feedback("3")] == [True] * 6


def test_deletions_take_the_same_time_however_much_waits(store: ProjectStore) -> None:
    masks = {"rle": list(range(3000))}
    waiting = [
        {"project_id": "3", "annotation_id": number, "task_id": number % 100, "updated": TIMES[0], "submission": masks}
        for number in range(3000)
    ]
    with store._database.transaction() as connection:
        connection.execute(ANNOTATIONS.insert(), waiting)
    begin = perf_counter()
    for number in range(5):
        store.annotations.delete("3", {number})
    store.annotations.delete_tasks("3", range(50, 60))
    assert perf_counter() - begin < 1
    assert len(store.annotations.known("3")) == 3000 - 5 - 300


def test_more_annotations_are_deleted_at_once_than_a_statement_has_parameters(store: ProjectStore) -> None:
    learn(store.annotations, row())
    store.annotations.delete("3", range(40_000))
    assert store.annotations.known("3") == {}


def test_a_forgotten_project_leaves_nothing(store: ProjectStore) -> None:
    learn(store.annotations, row())
    learn(store.annotations, row(project_id="4"))
    assert store.forget("3")
    assert not store.forget("3")
    assert (store.projects(), store.annotations.all_feedback("3")) == (["4"], [])
    assert len(store.annotations.all_feedback("4")) == 1
