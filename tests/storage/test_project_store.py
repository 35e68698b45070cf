import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.builders.postgres import Postgres
from walkcut.errors import RequestError
from walkcut.labelstudio import parse_timestamp
from walkcut.learning.examples import AnnotationFeedback, LabelExample
from walkcut.storage import Event, ProjectStore, project_id, project_store
from walkcut.storage.project_store import ProcessedAnnotation

ODD: list[object] = [None, {}, "", "x", "4x", "-4", "4\n", [4], True, "9" * 30]
TIMES = ["2026-11-20T08:38:56Z", "2026-11-20T08:38:56.500000Z", "2026-11-20T10:38:57+02:00", "2026-11-20T08:38:58Z"]


def lesson(
    annotation: int = 1,
    updated_at: str = TIMES[0],
    *,
    project: str = "3",
    source_model_version: str = "",
    labels: Sequence[str] = ("Part",),
) -> AnnotationFeedback:
    examples = tuple(LabelExample(label, (0.25, -1.0), 0.5) for label in labels)
    return AnnotationFeedback(
        project, annotation, 2, updated_at, "v1", {"auto": 0.5, "tau=0.4": 1.0}, examples, source_model_version
    )


@pytest.mark.parametrize(
    ("sent", "number"),
    [
        (4, "4"),
        ("4", "4"),
        ("4.1795164114", "4"),
        ("007.5", "7"),
        ({"id": 4, "title": "5"}, "4"),
        *[(odd, "") for odd in ODD],
    ],
)
def test_a_project_has_one_name_however_it_is_sent(sent: object, number: str) -> None:
    assert project_id(sent) == number


def test_events_come_back_in_order_and_outlive_the_process(opened: Callable[[], ProjectStore]) -> None:
    events = [Event(action, "3", {"n": number, "text": "é\0\ud800"}) for number, action in enumerate(["A", "B"])]
    first = opened()
    for happened in [*events, Event("C", "4", {"infinite": float("inf")})]:
        first.enqueue(happened)
    first.close()
    assert opened().events("3") == events
    again = opened()
    assert [again.event(number).action for number in again.pending_ids()] == ["A", "B", "C"]


def test_events_are_pending_until_they_are_finished(store: ProjectStore) -> None:
    for number in range(3):
        store.enqueue(Event("A", "3", {"n": number}))
    oldest, next_one, _ = store.pending_ids()
    assert store.event(next_one).body == {"n": 1}
    store.mark_done(oldest)
    assert [store.event(number).body["n"] for number in store.pending_ids()] == [1, 2]
    assert [happened.body for happened in store.events("3")] == [{}, {"n": 1}, {"n": 2}], "the body has gone"


def test_what_set_up_told_is_that_of_the_last_one(store: ProjectStore) -> None:
    assert (store.label_config("3"), store.extra_params("3")) == ("", {})
    for told in (("<é/>", {"a": 1}), ("<é/>", {"a": 1}), ("", {"a": 1}), ("<View/>", {"b": 2}), ("<View/>", {})):
        store.save_setup("3", *told)
        assert (store.label_config("3"), store.extra_params("3")) == told
    assert store.label_config("4") == ""


def test_a_set_up_without_news_writes_nothing(store: ProjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.save_setup("3", "<View/>", {"a": 1})
    monkeypatch.setattr(store, "_keep_project", None)
    store.save_setup("3", "<View/>", {"a": 1})
    store.save_setup("4", "", {})


def test_projects_learn_until_they_are_told_otherwise(store: ProjectStore) -> None:
    assert store.learning("3")
    for on in (False, True, False):
        store.set_learning("3", on=on)
        store.save_setup("3", f"<{on}/>", {})
        assert store.learning("3") is on
    assert store.learning("4")


def test_lessons_come_back_as_they_were_by_annotation(store: ProjectStore) -> None:
    kept = [lesson(10, source_model_version="auto-1"), lesson(2**40), lesson(9)]
    for each in [*kept, lesson(1, project="4")]:
        store.save_feedback(each)
    assert store.feedback("3") == [kept[2], kept[0], kept[1]]


def test_which_annotations_taught_is_told_without_their_lessons(store: ProjectStore) -> None:
    for each in (lesson(2, TIMES[2]), lesson(1), lesson(3, project="4")):
        store.save_feedback(each)
    store.disable_feedback("3", 1)
    found = [ProcessedAnnotation(annotation, 2, parse_timestamp(TIMES[time])) for annotation, time in ((1, 0), (2, 2))]
    assert sorted(store.processed("3"), key=lambda each: each.annotation) == found
    store.delete_feedback("3", set())
    store.delete_feedback("3", {1, 3, 5})
    assert store.processed("3") == found[1:]
    assert len(store.processed("4")) == 1


LABELS, SELDOM = st.sets(st.sampled_from("ABC")), st.sampled_from([False, False, False, True])
LABELLED = st.lists(st.tuples(st.sampled_from("3334"), LABELS, SELDOM), min_size=5, max_size=9)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kept=LABELLED)
def test_the_latest_annotations_and_the_latest_of_each_label_teach(
    store: ProjectStore, monkeypatch: pytest.MonkeyPatch, kept: list[tuple[str, set[str], bool]]
) -> None:
    monkeypatch.setattr(project_store, "_LATEST", 2)
    monkeypatch.setattr(project_store, "_LATEST_OF_LABEL", 1)
    for project in "34":
        store.delete_feedback(project, range(9))
    for annotation, (project, labels, disabled) in enumerate(kept):
        for moment, shown in ((TIMES[0], ["other"]), (TIMES[1], sorted(labels)), (TIMES[0], ["A", "B", "C"])):
            store.save_feedback(lesson(annotation, moment, project=project, labels=shown))
        if disabled:
            store.disable_feedback(project, annotation)
    valid = [
        (number, labels) for number, (project, labels, disabled) in enumerate(kept) if project == "3" and not disabled
    ]
    of_labels = [[number for number, labels in valid if label in labels][-1:] for label in "ABC"]
    expected = {number for number, _ in valid[-2:]}.union(*of_labels)
    assert [each.annotation for each in store.feedback("3")] == sorted(expected)


@pytest.mark.parametrize("label", ["", "x" * 9000, "é\0\ud800", "%_'"])
def test_any_label_teaches(store: ProjectStore, label: str) -> None:
    store.save_feedback(lesson(labels=[label, "y", label]))
    assert store.feedback("3") == [lesson(labels=[label, "y", label])]


def test_an_undone_lesson_stays_undone_until_its_annotation_changes(store: ProjectStore) -> None:
    store.save_feedback(lesson())
    assert store.disable_feedback("3", 1)
    assert not store.disable_feedback("3", 1), "undone before"
    assert not store.disable_feedback("3", 2), "there is none"
    store.save_feedback(lesson(source_model_version="anew"))
    assert store.feedback("3") == []
    assert store.all_feedback("3") == [(lesson(source_model_version="anew"), True)]
    store.save_feedback(lesson(updated_at=TIMES[1]))
    assert store.feedback("3") == [lesson(updated_at=TIMES[1])]


def test_reset_undoes_the_lessons_of_one_project(store: ProjectStore) -> None:
    for each in (lesson(1), lesson(2), lesson(3, project="4")):
        store.save_feedback(each)
    assert store.reset("3") == 2
    assert (store.feedback("3"), len(store.all_feedback("3")), len(store.feedback("4"))) == ([], 2, 1)


STEPS = st.sampled_from([("keep", 0), ("keep", 1), ("keep", 2), ("keep", 3), ("undo", 0), ("reset", 0), ("drop", 0)])


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEPS, max_size=8))
def test_the_latest_state_of_an_annotation_counts_in_whatever_order_it_comes(
    store: ProjectStore, steps: list[tuple[str, int]]
) -> None:
    store.delete_feedback("3", {1})
    time, disabled = -1, False
    for what, when in steps:
        if what == "keep":
            store.save_feedback(lesson(updated_at=TIMES[when]))
            disabled = disabled and when <= time
            time = max(time, when)
        elif what == "drop":
            store.delete_feedback("3", {1})
            time, disabled = -1, False
        else:
            store.disable_feedback("3", 1) if what == "undo" else store.reset("3")
            disabled = time >= 0
        assert store.all_feedback("3") == ([(lesson(updated_at=TIMES[time]), disabled)] if time >= 0 else [])


@pytest.mark.parametrize("moment", ["", "yesterday", "0001-01-01T00:00:00+23:59"])
def test_a_lesson_without_its_time_is_refused(store: ProjectStore, moment: str) -> None:
    with pytest.raises(RequestError, match=f"'{moment}' is not a time: annotations need".replace("+", r"\+")):
        store.save_feedback(lesson(updated_at=moment))


def test_many_threads_open_and_write_at_once(opened: Callable[[], ProjectStore]) -> None:
    def write(number: int) -> None:
        store = opened()
        store.enqueue(Event("A", "1", {"n": number}))
        store.save_setup("1", "<View/>", {"n": number})
        store.save_feedback(lesson(number))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(24)))
    store = opened()
    assert sorted(happened.body["n"] for happened in store.events("1")) == list(range(24))
    assert len(store.feedback("3")) == 24


def test_a_writer_waits_for_another(tmp_path: Path) -> None:
    store = ProjectStore(tmp_path)
    other = sqlite3.connect(tmp_path / "walkcut.sqlite3", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    writer = threading.Thread(target=store.enqueue, args=[Event("A", "1", {})])
    writer.start()
    writer.join(0.3)
    assert store.events("1") == [], "a reader does not wait"
    other.execute("COMMIT")
    other.close()
    writer.join()
    assert len(store.events("1")) == 1
    store.close()


def test_the_store_goes_on_after_a_restart_of_the_server(postgres: Postgres) -> None:
    postgres.empty()
    store = ProjectStore(Path("nowhere"), postgres.url.replace("postgresql:", "postgres:"))
    store.enqueue(Event("A", "1", {"n": 1}))
    postgres.stop()
    postgres.start()
    assert store.events("1") == [Event("A", "1", {"n": 1})]
    store.enqueue(Event("A", "1", {"n": 2}))
    store.close()
    assert not Path("nowhere").exists()
