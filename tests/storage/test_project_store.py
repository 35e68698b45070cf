import sqlite3
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.builders.postgres import Postgres
from tests.builders.stored_events import stored_events
from walkcut.storage import Event, FeedbackRow, ProcessedAnnotation, ProjectStore, project_store

TIMES = [datetime(2026, 11, 20, 8, 38, 56 + half // 2, half % 2 * 500_000, timezone.utc) for half in range(4)]


def feedback_row(
    annotation_id: int = 1,
    updated: datetime = TIMES[0],
    *,
    project_id: str = "3",
    labels: Iterable[str] = ("Part",),
    text: str = "",
) -> FeedbackRow:
    document = {"annotation": annotation_id, "updated": updated.isoformat(), "labels": [*labels], "text": text}
    return FeedbackRow(project_id, annotation_id, 2, updated, frozenset(labels), document)


def test_events_come_back_in_order_and_outlive_the_process(opened: Callable[[], ProjectStore]) -> None:
    events = [Event(action, "3", {"n": number, "text": "é\0\ud800"}) for number, action in enumerate(["A", "B"])]
    first = opened()
    for event in [*events, Event("C", "4", {"infinite": float("inf")})]:
        first.enqueue(event)
    first.close()
    assert stored_events(opened(), "3") == events
    again = opened()
    assert [again.event(number).action for number in again.pending_ids()] == ["A", "B", "C"]


def test_events_are_pending_until_they_are_done(store: ProjectStore) -> None:
    for number in range(3):
        store.enqueue(Event("A", "3", {"n": number}))
    oldest, next_one, _ = store.pending_ids()
    assert store.event(next_one).body == {"n": 1}
    store.mark_done(oldest)
    assert [store.event(number).body["n"] for number in store.pending_ids()] == [1, 2]
    assert [event.body for event in stored_events(store, "3")] == [{}, {"n": 1}, {"n": 2}], "the body is deleted"


def test_the_setup_is_the_last_one(store: ProjectStore) -> None:
    assert (store.label_config("3"), store.extra_params("3")) == ("", {})
    for setup in (("<é/>", {"a": 1}), ("<é/>", {"a": 1}), ("", {"a": 1}), ("<View/>", {"b": 2}), ("<View/>", {})):
        store.save_setup("3", *setup)
        assert (store.label_config("3"), store.extra_params("3")) == setup
    assert store.label_config("4") == ""


def test_an_unchanged_setup_writes_nothing(store: ProjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.save_setup("3", "<View/>", {"a": 1})
    monkeypatch.setattr(store, "_save_project", None)
    store.save_setup("3", "<View/>", {"a": 1})
    store.save_setup("4", "", {})


def test_projects_learn_until_that_is_switched_off(store: ProjectStore) -> None:
    assert store.learning("3")
    for on in (False, True, False):
        store.set_learning("3", enabled=on)
        store.save_setup("3", f"<{on}/>", {})
        assert store.learning("3") is on
    assert store.learning("4")


def test_a_project_whose_learning_was_switched_before_its_setup_has_an_empty_one(store: ProjectStore) -> None:
    store.set_learning("3", enabled=False)
    assert (store.label_config("3"), store.extra_params("3"), store.projects()) == ("", {}, ["3"])


def test_feedback_comes_back_by_annotation(store: ProjectStore) -> None:
    rows = [feedback_row(10, text="é\0\ud800"), feedback_row(2**40), feedback_row(9)]
    for row in [*rows, feedback_row(1, project_id="4")]:
        store.save_feedback(row)
    assert store.feedback("3") == [rows[2].document, rows[0].document, rows[1].document]


def test_processed_annotations_are_listed_without_their_feedback(store: ProjectStore) -> None:
    for row in (feedback_row(2, TIMES[2]), feedback_row(1), feedback_row(3, project_id="4")):
        store.save_feedback(row)
    store.disable_feedback("3", 1)
    expected = [ProcessedAnnotation(annotation_id, 2, TIMES[time]) for annotation_id, time in ((1, 0), (2, 2))]
    assert sorted(store.processed("3"), key=lambda row: row.annotation_id) == expected
    store.delete_feedback("3", set())
    store.delete_feedback("3", {1, 3, 5})
    assert store.processed("3") == expected[1:]
    assert len(store.processed("4")) == 1


LABELS, SELDOM = st.sets(st.sampled_from("ABC")), st.sampled_from([False, False, False, True])
LABELLED = st.lists(st.tuples(st.sampled_from("3334"), LABELS, SELDOM), min_size=5, max_size=9)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(annotations=LABELLED)
def test_feedback_is_that_of_the_latest_annotations_and_of_the_latest_with_each_label(
    store: ProjectStore, monkeypatch: pytest.MonkeyPatch, annotations: list[tuple[str, set[str], bool]]
) -> None:
    monkeypatch.setattr(project_store, "_MAX_LATEST", 2)
    monkeypatch.setattr(project_store, "_MAX_LATEST_PER_LABEL", 1)
    for project_id in "34":
        store.delete_feedback(project_id, range(9))
    for annotation_id, (project_id, labels, disabled) in enumerate(annotations):
        for updated, saved in ((TIMES[0], ["other"]), (TIMES[1], sorted(labels)), (TIMES[0], ["A", "B", "C"])):
            store.save_feedback(feedback_row(annotation_id, updated, project_id=project_id, labels=saved))
        if disabled:
            store.disable_feedback(project_id, annotation_id)
    valid = [
        (annotation_id, labels)
        for annotation_id, (project_id, labels, disabled) in enumerate(annotations)
        if project_id == "3" and not disabled
    ]
    of_labels = [[annotation_id for annotation_id, labels in valid if label in labels][-1:] for label in "ABC"]
    expected = {annotation_id for annotation_id, _ in valid[-2:]}.union(*of_labels)
    assert [document["annotation"] for document in store.feedback("3")] == sorted(expected)


@pytest.mark.parametrize("label", ["", "x" * 9000, "é\0\ud800", "%_'"])
def test_any_label_can_be_saved(store: ProjectStore, label: str) -> None:
    row = feedback_row(labels=[label, "y", label])
    store.save_feedback(row)
    assert store.feedback("3") == [row.document]


def test_disabled_feedback_stays_disabled_until_its_annotation_changes(store: ProjectStore) -> None:
    store.save_feedback(feedback_row())
    assert store.disable_feedback("3", 1)
    assert not store.disable_feedback("3", 1), "disabled before"
    assert not store.disable_feedback("3", 2), "there is none"
    again = feedback_row(text="again")
    store.save_feedback(again)
    assert store.feedback("3") == []
    assert store.all_feedback("3") == [(again.document, True)]
    later = feedback_row(updated=TIMES[1])
    store.save_feedback(later)
    assert store.feedback("3") == [later.document]


def test_reset_disables_the_feedback_of_one_project(store: ProjectStore) -> None:
    for row in (feedback_row(1), feedback_row(2), feedback_row(3, project_id="4")):
        store.save_feedback(row)
    assert store.reset("3") == 2
    assert (store.feedback("3"), len(store.all_feedback("3")), len(store.feedback("4"))) == ([], 2, 1)


STEPS = st.sampled_from(
    [("save", 0), ("save", 1), ("save", 2), ("save", 3), ("disable", 0), ("reset", 0), ("delete", 0)]
)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEPS, max_size=8))
def test_the_latest_state_of_an_annotation_counts_in_whatever_order_it_comes(
    store: ProjectStore, steps: list[tuple[str, int]]
) -> None:
    store.delete_feedback("3", {1})
    latest, disabled = -1, False
    for action, time in steps:
        if action == "save":
            store.save_feedback(feedback_row(updated=TIMES[time]))
            disabled = disabled and time <= latest
            latest = max(latest, time)
        elif action == "delete":
            store.delete_feedback("3", {1})
            latest, disabled = -1, False
        else:
            store.disable_feedback("3", 1) if action == "disable" else store.reset("3")
            disabled = latest >= 0
        expected = [(feedback_row(updated=TIMES[latest]).document, disabled)] if latest >= 0 else []
        assert store.all_feedback("3") == expected


def test_many_threads_open_and_write_at_once(opened: Callable[[], ProjectStore]) -> None:
    def write(number: int) -> None:
        store = opened()
        store.enqueue(Event("A", "1", {"n": number}))
        store.save_setup("1", "<View/>", {"n": number})
        store.save_feedback(feedback_row(number))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(24)))
    store = opened()
    assert sorted(event.body["n"] for event in stored_events(store, "1")) == list(range(24))
    assert len(store.feedback("3")) == 24


def test_a_writer_waits_for_another(tmp_path: Path) -> None:
    store = ProjectStore(tmp_path)
    other = sqlite3.connect(tmp_path / "walkcut.sqlite3", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    writer = threading.Thread(target=store.enqueue, args=[Event("A", "1", {})])
    writer.start()
    writer.join(0.3)
    assert stored_events(store, "1") == [], "a reader does not wait"
    other.execute("COMMIT")
    other.close()
    writer.join()
    assert len(stored_events(store, "1")) == 1
    store.close()


def test_the_store_goes_on_after_a_restart_of_the_server(postgres: Postgres) -> None:
    postgres.empty()
    store = ProjectStore(Path("nowhere"), postgres.url.replace("postgresql:", "postgres:"))
    store.enqueue(Event("A", "1", {"n": 1}))
    postgres.stop()
    postgres.start()
    assert stored_events(store, "1") == [Event("A", "1", {"n": 1})]
    store.enqueue(Event("A", "1", {"n": 2}))
    store.close()
    assert not Path("nowhere").exists()
