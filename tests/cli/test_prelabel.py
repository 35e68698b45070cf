import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.builders.bulk import make_image
from tests.builders.feedback import CONFIG, HALVES, created, task
from tests.builders.held_studio import HeldStudio
from walkcut.cli import main
from walkcut.inference.factory import make_predictor
from walkcut.labelstudio import read_task
from walkcut.serving.feedback import FeedbackWorker
from walkcut.settings import Settings
from walkcut.storage import Event, ProjectStore, TreeCache

START_S = 120.0
SECOND = (
    '<Image name="back" value="$back"/><BrushLabels name="c" toName="back"><Label value="Car"/></BrushLabels></View>'
)
TWO_IMAGES = CONFIG.replace("</View>", SECOND)


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WALKCUT_STATE_DIR", str(tmp_path / "state"))
    return tmp_path / "state"


def walkcut(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def make_images(folder: Path, count: int, side: int = 32) -> Path:
    for number in range(count):
        make_image(folder / f"{number}.png", side + number, side)
    return folder


def contents(out: Path) -> dict[str, bytes]:
    """What a run wrote, but not what it notes for itself and how long it took."""
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in out.rglob("*")
        if path.is_file() and ".walkcut" not in path.parts and path.name != "report.json"
    }


def lines(out: Path) -> list[bytes]:
    path = out / ".walkcut" / "done.jsonl"
    return path.read_bytes().splitlines() if path.exists() else []


def test_images_become_import_files_and_are_cut_again_from_their_trees(tmp_path: Path, state: Path) -> None:
    (make_images(tmp_path / "in", 3) / "bad.jpg").write_text("no image")
    arguments = ("prelabel", tmp_path / "in", "--out", tmp_path / "out", "--workers", 1)
    result = walkcut(*arguments)
    assert result.exit_code == 1
    assert "in all 3 done, 1 failed" in result.output
    assert "failed.jsonl says why; --retry-failed tries them again" in result.stderr
    tasks = json.loads((tmp_path / "out" / "tasks-00001.json").read_text())
    assert [task["data"]["image"] for task in tasks] == [str(tmp_path / "in" / f"{number}.png") for number in range(3)]
    assert [len(task["predictions"]) for task in tasks] == [4] * 3
    assert len(list((state / "trees").iterdir())) == 3

    refused = walkcut(*arguments, "--format", "png")
    assert refused.exit_code == 1
    assert "format was label-studio, now png" in refused.stderr
    (tmp_path / "in" / "bad.jpg").write_bytes((tmp_path / "in" / "0.png").read_bytes())
    assert walkcut(*arguments, "--retry-failed").exit_code == 0

    again = ("re-export", tmp_path / "out", "--format", "png", "--granularity", 2, "--workers", 1)
    assert walkcut(*again, "--out", tmp_path / "out").exit_code == 1
    assert walkcut(*again, "--out", tmp_path / "again").exit_code == 0
    direct = ("prelabel", tmp_path / "in", "--format", "png", "--granularity", 2, "--workers", 1)
    assert walkcut(*direct, "--out", tmp_path / "direct").exit_code == 0
    assert contents(tmp_path / "again") == contents(tmp_path / "direct")
    assert len(contents(tmp_path / "again")) == 5

    TreeCache(state / "trees", 0).put_bytes("new", b"")  # drops all
    lost = walkcut(*again, "--out", tmp_path / "lost")
    assert lost.exit_code == 1
    assert "in all 0 done, 4 failed" in lost.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "say what to label: either sources or --project"),
        (("x", "--project", "3"), "say what to label: either sources or --project"),
        (("x",), "say with --out into which folder the results go"),
        (("--project", "3", "--granularity", "4"), "its own labelling config and granularities: leave those"),
        (("--project", "3", "--format", "coco"), "its own labelling config and granularities: leave those"),
        (("x", "--out", "out", "--replace"), "--replace is about predictions in Label Studio: say with --project"),
        (("x", "--out", "out", "--label-config", "two.xml"), r"several images a task (im, back), and files are"),
        (("--project", "3"), "set LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY"),
        (("nowhere", "--out", "out"), "there is no nowhere"),
    ],
)
def test_what_cannot_be_done_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("two.xml").write_text(TWO_IMAGES)
    result = walkcut("prelabel", *arguments)
    assert result.exit_code == 1
    assert message in result.stderr


@pytest.fixture
def studio(monkeypatch: pytest.MonkeyPatch) -> HeldStudio:
    """A Label Studio that the settings name, with two tasks."""
    held = HeldStudio([task(1), task(2)], CONFIG)
    monkeypatch.setenv("LABEL_STUDIO_URL", "http://label-studio.test")
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "0123456789abcdef")
    monkeypatch.setattr("walkcut.serving.backend.LabelStudioClient", lambda access, ca_bundle: held)
    return held


@pytest.fixture
def feedback_worker(state: Path) -> Iterator[FeedbackWorker]:
    """A worker for project 3, which has learned from two tasks."""
    with closing(ProjectStore(state)) as store:
        store.save_setup("3", CONFIG, {})
        feedback_worker = FeedbackWorker(make_predictor(Settings(state_dir=state)), store)
        for number in (1, 2):
            feedback_worker.process(created(number, *HALVES, task_id=number))
        yield feedback_worker


def test_predictions_go_into_a_project_once_and_replace_earlier_ones(studio: HeldStudio, state: Path) -> None:
    studio.take([{"task": number, "model_version": "auto-walkcut-merge-01234567"} for number in studio.tasks])
    for _ in range(2):
        result = walkcut("prelabel", "--project", 3, "--workers", 1)
        assert result.exit_code == 0, result.output
    (request,) = studio.requests
    assert sorted(each["task"] for each in request) == [1] * 4 + [2] * 4
    assert len({each["model_version"] for each in request}) == 4
    assert len(list((state / "prelabel" / "project-3").iterdir())) == 1
    result = walkcut("prelabel", "--project", 3, "--workers", 1, "--replace")
    assert result.exit_code == 0, result.output
    assert list(studio.held.values()) == request


def test_predictions_of_a_project_that_has_learned_are_those_of_the_backend(
    studio: HeldStudio, feedback_worker: FeedbackWorker, state: Path
) -> None:
    assert walkcut("prelabel", "--project", 3, "--workers", 1).exit_code == 0
    project = feedback_worker.project("3", CONFIG, {})
    expected = make_predictor(Settings(state_dir=state)).predict(read_task(task(1)), project)
    assert [each for each in studio.held.values() if each["task"] == 1] == [
        {"task": 1, **each.as_json()} for each in expected
    ]
    assert any("meta" in region for each in expected for region in each.result)


def test_a_run_into_a_project_is_cut_again_as_that_has_learned(
    studio: HeldStudio, feedback_worker: FeedbackWorker, state: Path, tmp_path: Path
) -> None:
    assert walkcut("prelabel", "--project", 3, "--workers", 1, "--out", tmp_path / "run").exit_code == 0
    again = ("re-export", tmp_path / "run", "--workers", 1, "--out")

    def predictions(name: str, *options: object) -> list[dict[str, Any]]:
        result = walkcut(*again, tmp_path / name, *options)
        assert result.exit_code == 0, result.output
        rows = json.loads((tmp_path / name / "tasks-00001.json").read_text())
        assert [row["data"] for row in rows] == [task(number)["data"] for number in (1, 2)]
        return list(rows[0]["predictions"])

    learned = predictions("learned", "--project", 3)
    assert learned == [{key: each[key] for key in learned[0]} for each in studio.held.values() if each["task"] == 1]
    assert "Car" in labels(learned)
    coarse = predictions("coarse", "--project", 3, "--granularity", 2)
    assert [each["model_version"].partition("-")[0] for each in coarse] == ["2"]
    assert "Car" in labels(coarse)

    refused = walkcut(*again, tmp_path / "refused")
    assert refused.exit_code == 1
    assert "is a run into a Label Studio project: name that with --project" in refused.stderr
    (tmp_path / "config.xml").write_text(CONFIG)
    assert "Car" not in labels(predictions("plain", "--label-config", tmp_path / "config.xml"))
    refused = walkcut(*again, tmp_path / "refused", "--project", 4)
    assert "config of project 4 is not known here, as it is where the backend was attached" in refused.stderr
    feedback_worker.process(Event("ANNOTATIONS_DELETED", "3", {"annotations": [{"id": 1}, {"id": 2}]}))
    assert "Car" not in labels(predictions("forgotten", "--project", 3))


def labels(predictions: list[dict[str, Any]]) -> set[str]:
    return {each["value"]["brushlabels"][0] for prediction in predictions for each in prediction["result"]}


def start(*arguments: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "walkcut", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def wait_for_lines(out: Path, count: int) -> None:
    latest = time.monotonic() + START_S
    while len(lines(out)) < count:
        assert time.monotonic() < latest, "no images"
        time.sleep(0.005)


def end(process: subprocess.Popen[bytes], number: int) -> tuple[int, str]:
    process.send_signal(number)
    _, said = process.communicate(timeout=START_S)
    return process.returncode, said.decode()


def test_a_run_that_is_killed_goes_on_and_comes_to_the_same(tmp_path: Path) -> None:
    """Two kills -9 and one SIGTERM at random moments."""
    make_images(tmp_path / "in", 40, 160)
    arguments = ("prelabel", tmp_path / "in", "--format", "png", "--workers", 2, "--no-trees")
    out, chance = tmp_path / "out", random.Random(0)
    for number in (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM):
        with start(*arguments, "--out", out) as process:
            wait_for_lines(out, len(lines(out)) + chance.randint(1, 8))
            time.sleep(chance.random() / 20)
            status, said = end(process, number)
        if number == signal.SIGTERM:
            assert status == 130
            assert "done and kept; the same command goes on from there" in said
        else:
            assert status == -signal.SIGKILL
    assert walkcut(*arguments, "--out", out).exit_code == 0
    assert sorted(json.loads(line)["key"] for line in lines(out)) == sorted(str(number) for number in range(40))
    assert walkcut(*arguments, "--out", tmp_path / "whole").exit_code == 0
    assert contents(out) == contents(tmp_path / "whole")
    assert len(contents(out)) == 41
