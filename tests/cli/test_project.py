import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.builders.feedback import CONFIG, HALVES, FakeLabelStudio, annotation, created, task
from walkcut.cli import main
from walkcut.inference.factory import make_predictor
from walkcut.serving.feedback import FeedbackWorker
from walkcut.settings import Settings
from walkcut.storage import ProjectStore


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder with a project 3 that two tasks have taught."""
    monkeypatch.setenv("WALKCUT_STATE_DIR", str(tmp_path))
    store = ProjectStore(tmp_path)
    store.save_setup("3", CONFIG, {})
    feedback_worker = FeedbackWorker(make_predictor(Settings(state_dir=tmp_path)), store)
    for number in (1, 2):
        feedback_worker.process(created(number, *HALVES, task_id=number))
    store.close()
    return tmp_path


@pytest.fixture
def studio(folder: Path, monkeypatch: pytest.MonkeyPatch) -> FakeLabelStudio:
    """A Label Studio that the settings name."""
    held = FakeLabelStudio()
    monkeypatch.setenv("LABEL_STUDIO_URL", "http://label-studio.test")
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "0123456789abcdef")
    monkeypatch.setattr("walkcut.serving.backend.LabelStudioClient", lambda access, ca_bundle: held)
    return held


def walkcut(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["project", *arguments])


def shown() -> dict[str, object]:
    return dict(json.loads(walkcut("show", "3").stdout))


def test_what_was_learned_is_shown_with_its_sources(folder: Path) -> None:
    document = shown()
    sources = [{"task": number, "annotation": number} for number in (1, 2)]
    assert document["labels"] == {"Car": sources}
    assert document["granularity_from"] == sources
    assert str(document["granularity"]).startswith("tau=")
    assert document["learning"] is True
    feedback = document["feedback"]
    assert isinstance(feedback, list)
    assert [(row["task"], row["labels"], row["disabled"]) for row in feedback] == [
        (1, ["Car"], False),
        (2, ["Car"], False),
    ]


def test_a_project_that_nobody_knows_has_learned_nothing(folder: Path) -> None:
    document = json.loads(walkcut("show", "77").stdout)
    assert (document["granularity"], document["labels"], document["feedback"]) == (None, {}, [])


@pytest.mark.parametrize("which", [("--annotation", "1"), ("--task", "1")])
def test_feedback_is_disabled(folder: Path, which: tuple[str, str]) -> None:
    assert walkcut("undo", "3", *which).stdout == "1 undone\n"
    assert shown()["labels"] == {"Car": [{"task": 2, "annotation": 2}]}
    again = walkcut("undo", "3", *which)
    assert again.exit_code == 1
    assert "has taught project 3 nothing: see `walkcut project show 3`" in again.stderr


@pytest.mark.parametrize("which", [(), ("--task", "1", "--annotation", "1")])
def test_it_must_be_clear_what_is_undone(folder: Path, which: tuple[str, ...]) -> None:
    result = walkcut("undo", "3", *which)
    assert result.exit_code == 1
    assert "either --annotation or --task" in result.stderr


def test_all_is_undone(folder: Path) -> None:
    assert walkcut("reset", "3").stdout == "2 undone\n"
    assert shown()["granularity"] is None


def test_learning_is_switched(folder: Path) -> None:
    for switch, on in (("off", False), ("on", True)):
        assert walkcut("learning", "3", switch).exit_code == 0
        assert shown()["learning"] is on


def test_what_webhooks_lost_is_learned(folder: Path, studio: FakeLabelStudio) -> None:
    studio.held = [(task(), annotation(1, *HALVES)), (task(3), annotation(3, *HALVES)), ({"id": 4}, annotation(4))]
    result = walkcut("sync", "3")
    assert result.stdout == "1 learned, 1 forgotten, 1 failed\n"
    assert result.exit_code == 1


def test_without_label_studio_nothing_can_be_asked(folder: Path) -> None:
    result = walkcut("sync", "3")
    assert result.exit_code == 1
    assert "set LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY" in result.stderr
