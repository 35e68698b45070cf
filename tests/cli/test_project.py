import json
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.builders.feedback import (
    CONFIG,
    HALVES,
    LEFT,
    RIGHT,
    TOP,
    FakeLabelStudio,
    annotation,
    created,
    deliver,
    task,
)
from walkcut.cli import main
from walkcut.inference.factory import make_predictor
from walkcut.serving.feedback_worker import FeedbackWorker
from walkcut.settings import Settings
from walkcut.storage import ProjectStore


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder with project 3, which has learned from two tasks."""
    monkeypatch.setenv("WALKCUT_STATE_DIR", str(tmp_path))
    store = ProjectStore(tmp_path)
    store.save_setup("3", CONFIG, {})
    deliver(store, *(created(annotation_id, *HALVES, task_id=annotation_id) for annotation_id in (1, 2)))
    FeedbackWorker(make_predictor(Settings(state_dir=tmp_path)), store).learn_due()
    store.close()
    return tmp_path


@pytest.fixture
def label_studio(folder: Path, monkeypatch: pytest.MonkeyPatch) -> FakeLabelStudio:
    """The Label Studio of the settings."""
    held = FakeLabelStudio()
    monkeypatch.setenv("LABEL_STUDIO_URL", "http://label-studio.test")
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "0123456789abcdef")
    monkeypatch.setattr("walkcut.serving.backend.LabelStudioClient", lambda access, ca_bundle: held)
    return held


def walkcut(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["project", *arguments])


def document() -> dict[str, object]:
    return dict(json.loads(walkcut("show", "3", "--json").stdout))


def test_what_was_learned_is_shown_with_its_annotations(folder: Path) -> None:
    shown = document()
    references = [{"task": index, "annotation": index} for index in (1, 2)]
    assert shown["labels"] == {"Car": references}
    assert shown["granularity_from"] == references
    assert str(shown["granularity"]).startswith("tau=")
    assert shown["learning"] is True
    assert shown["label_confidence"] == {"Car": 0}, "two tasks are too few"
    feedback = shown["feedback"]
    assert isinstance(feedback, list)
    assert [(item["task"], item["labels"], item["disabled"]) for item in feedback] == [
        (1, ["Car"], False),
        (2, ["Car"], False),
    ]


def test_the_names_that_annotators_kept_are_counted(folder: Path) -> None:
    with closing(ProjectStore(folder)) as store:
        event = created(3, ("Car", LEFT), ("Sky", RIGHT & TOP), ("Sky", RIGHT & ~TOP), task_id=3)
        for item, given in zip(event.body["annotation"]["result"], ("Car", "Car", "Region"), strict=True):
            item["meta"] = {"walkcut": {"label": given}}
        deliver(store, event)
        FeedbackWorker(make_predictor(Settings(state_dir=folder)), store).learn_due()
    shown = document()
    assert shown["names"] == {"given": 2, "kept": 1}
    feedback = shown["feedback"]
    assert isinstance(feedback, list)
    assert [item["names"] for item in feedback] == [{"given": 0, "kept": 0}] * 2 + [{"given": 2, "kept": 1}]


@pytest.mark.parametrize("arguments", [("show",), ("undo", "--task", "1"), ("reset",), ("learning", "off")])
def test_an_unknown_project_is_an_error(folder: Path, arguments: tuple[str, ...]) -> None:
    command, *options = arguments
    unknown = walkcut(command, "77", *options)
    assert unknown.exit_code == 1
    assert unknown.stderr == (
        "Error: project 77 is unknown here: open a task of it in Label Studio, or run `walkcut project sync 77`; known "
        "are 3\n"
    )


def test_what_was_learned_is_shown_as_a_table(folder: Path) -> None:
    with closing(ProjectStore(folder)) as store:
        deliver(store, created(9, updated="soon"))
    assert walkcut("show", "3").stdout.splitlines() == [
        "project      3, learning on",
        "annotations  2 learned from (0 disabled), 0 waiting, 1 set aside",
        f"granularity  {document()['granularity']}, from 2 tasks",
        "names        0 kept of 0 given",
        "",
        "label  tasks  annotations  confidence",
        "Car        2            2        0.00",
        "",
        "annotation      task  next attempt               set aside because",
        "         9         1  when it is changed         updated_at is text that is not a time: send it as Label "
        "Studio does",
    ]


def test_a_project_that_has_learned_nothing_says_so(folder: Path) -> None:
    with closing(ProjectStore(folder)) as store:
        store.save_setup("4", CONFIG, {})
    assert walkcut("show", "4").stdout.splitlines() == [
        "project      4, learning on",
        "annotations  0 learned from (0 disabled), 0 waiting, 0 set aside",
        "granularity  none learned",
        "names        0 kept of 0 given",
    ]


def test_annotations_that_were_set_aside_are_shown_with_the_reason(folder: Path) -> None:
    with closing(ProjectStore(folder)) as store:
        deliver(store, created(7, *HALVES), created(8, *HALVES), created(9, updated="soon"))
        attempt = store.annotations.next_attempt(0.0, lambda _: 60.0)
        assert attempt
        store.annotations.postpone(attempt.row, 86400.0, "the image is gone")
    shown = document()
    unreadable = "updated_at is text that is not a time: send it as Label Studio does"
    assert shown["pending"] == 1
    assert shown["set_aside"] == [
        {
            "task": 1,
            "annotation": 7,
            "problem": "the image is gone",
            "attempts": 1,
            "next_attempt": "1970-01-02T00:00:00+00:00",
        },
        {"task": 1, "annotation": 9, "problem": unreadable, "attempts": 1, "next_attempt": None},
    ]


@pytest.mark.parametrize("target", [("--annotation", "1"), ("--task", "1")])
def test_feedback_is_disabled(folder: Path, target: tuple[str, str]) -> None:
    assert walkcut("undo", "3", *target).stdout == "1 disabled\n"
    assert document()["labels"] == {"Car": [{"task": 2, "annotation": 2}]}
    again = walkcut("undo", "3", *target)
    assert again.exit_code == 1
    assert "see `walkcut project show 3`" in again.stderr


@pytest.mark.parametrize("target", [(), ("--task", "1", "--annotation", "1")])
def test_either_an_annotation_or_a_task_is_disabled(folder: Path, target: tuple[str, ...]) -> None:
    result = walkcut("undo", "3", *target)
    assert result.exit_code == 1
    assert "either --annotation or --task" in result.stderr


def test_all_feedback_is_disabled(folder: Path) -> None:
    assert walkcut("reset", "3").stdout == "2 disabled\n"
    assert document()["granularity"] is None


def test_learning_is_switched(folder: Path) -> None:
    for switch, on in (("off", False), ("on", True)):
        assert walkcut("learning", "3", switch).exit_code == 0
        assert document()["learning"] is on


def test_a_project_is_forgotten(folder: Path) -> None:
    assert walkcut("forget", "3").stdout == "project 3 forgotten\n"
    again = walkcut("forget", "3")
    assert (again.exit_code, "project 3 is unknown here" in again.stderr) == (1, True)


def test_annotations_without_webhooks_are_learned(folder: Path, label_studio: FakeLabelStudio) -> None:
    label_studio.held = [
        (task(), annotation(1, *HALVES)),
        (task(3), annotation(3, *HALVES)),
        ({"id": 4}, annotation(4)),
    ]
    result = walkcut("sync", "3")
    assert result.stdout == "1 learned, 1 forgotten, 1 failed\n"
    assert result.exit_code == 1


def test_without_label_studio_there_is_no_sync(folder: Path) -> None:
    result = walkcut("sync", "3")
    assert result.exit_code == 1
    assert "set LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY" in result.stderr
