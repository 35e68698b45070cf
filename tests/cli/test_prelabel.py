import json
import random
import signal
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.builders.bulk import done_lines, output_files, write_images
from tests.builders.bulk_commands import end_with, start_walkcut, wait_for_lines, walkcut
from tests.builders.fake_label_studio import FakeLabelStudio
from tests.builders.feedback import CONFIG, HALVES, created, deliver, task
from walkcut.inference.factory import make_predictor
from walkcut.labelstudio.tasks import read_task
from walkcut.serving.feedback_worker import FeedbackWorker
from walkcut.serving.project_cache import ProjectCache
from walkcut.settings import Settings
from walkcut.storage import ProjectStore, TreeCache

SECOND = (
    '<Image name="back" value="$back"/><BrushLabels name="c" toName="back"><Label value="Car"/></BrushLabels></View>'
)
TWO_IMAGES = CONFIG.replace("</View>", SECOND)


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WALKCUT_STATE_DIR", str(tmp_path / "state"))
    return tmp_path / "state"


def test_images_become_import_files_and_are_exported_again_from_their_trees(tmp_path: Path, state: Path) -> None:
    (write_images(tmp_path / "in", 3) / "bad.jpg").write_text("not an image")
    arguments = ("prelabel", tmp_path / "in", "--out", tmp_path / "out", "--workers", 1)
    result = walkcut(*arguments)
    assert result.exit_code == 1
    assert "in total 3 done, 1 failed" in result.output
    assert "failed.jsonl lists the reasons; --retry-failed tries these images again" in result.stderr
    tasks = json.loads((tmp_path / "out" / "tasks-00001.json").read_text())
    assert [task["data"]["image"] for task in tasks] == [str(tmp_path / "in" / f"{index}.png") for index in range(3)]
    assert [len(task["predictions"]) for task in tasks] == [4] * 3
    assert len(list((state / "trees").iterdir())) == 3

    refused = walkcut(*arguments, "--format", "png")
    assert refused.exit_code == 1
    assert "format was label-studio, now png; other format settings)" in refused.stderr
    (tmp_path / "in" / "bad.jpg").write_bytes((tmp_path / "in" / "0.png").read_bytes())
    assert walkcut(*arguments, "--retry-failed").exit_code == 0

    again = ("re-export", tmp_path / "out", "--format", "png", "--granularity", 2, "--workers", 1)
    assert walkcut(*again, "--out", tmp_path / "out").exit_code == 1
    assert walkcut(*again, "--out", tmp_path / "again").exit_code == 0
    direct = ("prelabel", tmp_path / "in", "--format", "png", "--granularity", 2, "--workers", 1)
    assert walkcut(*direct, "--out", tmp_path / "direct").exit_code == 0
    assert output_files(tmp_path / "again") == output_files(tmp_path / "direct")
    assert len(output_files(tmp_path / "again")) == 5

    TreeCache(state / "trees", 0).register(1)  # evicts all trees
    evicted = walkcut(*again, "--out", tmp_path / "evicted")
    assert evicted.exit_code == 1
    assert "in total 0 done, 4 failed" in evicted.output


def test_what_was_skipped_failed_or_has_changed_is_told(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "in", 3)
    (folder / "bad.jpg").write_text("not an image")
    for index in range(5):
        (folder / f"{index}.heic").write_bytes(b"\0\0\0\x18ftypheic")
    (folder / "notes.txt").write_text("notes")
    arguments = ("prelabel", folder, "--out", tmp_path / "out", "--workers", 1, "--format", "png")
    first = walkcut(*arguments)
    assert "3 done in" in first.stdout
    assert "in total 3 done, 1 failed, 6 skipped" in first.stdout
    names = ", ".join(str(folder / f"{index}.heic") for index in range(3))
    assert f"5 skipped: HEIC: convert it to JPEG or PNG ({names}, …)" in first.stderr
    assert f"1 skipped: no image ({folder / 'notes.txt'})" in first.stderr
    assert f"failed: {folder / 'bad.jpg'}: 12 bytes that begin with b'not ' are not in" in first.stderr
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["skipped"] == 6
    assert report["skipped_by_reason"]["no image"] == {"count": 1, "examples": [str(folder / "notes.txt")]}

    old = output_files(tmp_path / "out")
    assert "0 done in" in walkcut(*arguments).stdout
    content = (folder / "1.png").read_bytes()
    (folder / "1.png").write_bytes((folder / "2.png").read_bytes())
    again = walkcut(*arguments)
    assert "0 done in" in again.stdout
    assert f"1 skipped: finished, but changed since: --changed processes it again ({folder / '1.png'})" in again.stderr
    assert output_files(tmp_path / "out")["1.png"] == old["1.png"]
    changed = walkcut(*arguments, "--changed")
    assert "1 done in" in changed.stdout
    assert "in total 3 done, 1 failed, 6 skipped" in changed.stdout
    assert output_files(tmp_path / "out")["1.png"] == old["2.png"]
    assert "changed" not in walkcut(*arguments).stderr
    (folder / "1.png").write_text("no image any more")
    assert "in total 2 done, 2 failed" in walkcut(*arguments, "--changed").stdout
    assert "1.png" not in output_files(tmp_path / "out")
    (folder / "1.png").write_bytes(content)
    (folder / "bad.jpg").write_bytes(content)
    assert "in total 4 done, 0 failed" in walkcut(*arguments, "--retry-failed").stdout
    assert output_files(tmp_path / "out")["1.png"] == old["1.png"]


@pytest.mark.parametrize("exported_as", ["label-studio", "png"])
def test_addresses_that_label_studio_cannot_show_are_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, exported_as: str
) -> None:
    folder = write_images(tmp_path / "in", 2)
    arguments = ("prelabel", folder, "--workers", 1, "--format", exported_as)
    result = walkcut(*arguments, "--out", tmp_path / "paths")
    warning = (
        "warning: 2 tasks have the path of a file as image, which Label Studio cannot show: give --local-files-root"
    )
    assert (warning in result.stderr) == (exported_as == "label-studio")
    if exported_as == "png":
        return
    assert [record.levelname for record in caplog.records if "cannot show" in record.getMessage()] == ["WARNING"]
    refused = walkcut(*arguments, "--out", tmp_path / "paths", "--url-prefix", "https://e.org")
    assert "holds a run with other settings (addresses was" in refused.stderr
    for name, expected, options in (
        ("root", "/data/local-files/?d=in/0.png", ("--local-files-root", tmp_path)),
        ("prefix", "https://e.org/x/0.png", ("--url-prefix", "https://e.org/x")),
    ):
        result = walkcut(*arguments, "--out", tmp_path / name, *options)
        assert "cannot show" not in result.stderr
        tasks = json.loads((tmp_path / name / "tasks-00001.json").read_text())
        assert tasks[0]["data"] == {"image": expected}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--project", "3", "--changed"),
            "--local-files-root, --url-prefix and --changed are for files: leave them out",
        ),
        (("--project", "3", "--url-prefix", "https://e.org"), "are for files: leave them out with --project"),
        *(
            (
                ("x", "--out", "out", "--url-prefix", url),
                f"--url-prefix {url} is no address of a folder: write https://",
            )
            for url in ("e.org", "https://", "https://e.org/x?y=1", "https://e.org/#x")
        ),
        (("x", "--out", "out", "--label-config", "bytes.xml"), "bytes.xml is no text in UTF-8: save it as UTF-8"),
        (("x", "--out", "out", "--label-config", "empty.xml"), "empty.xml is empty: put the labelling config there"),
        (
            ("x", "--out", "out", "--format", "coco", "--granularity", "12", "--granularity", "fine"),
            "the format coco takes one granularity, not 12, fine: give --granularity once",
        ),
        (
            ("x", "--out", "o", "--url-prefix", "http://e", "--local-files-root", "."),
            "give one of --local-files-root and",
        ),
        (("x", "--out", "o", "--upload"), "--upload makes tasks of a Label Studio project: give the project"),
        ((), "give either sources or --project, or both with --upload"),
        (("x", "--project", "3"), "give either sources or --project, or both with --upload"),
        (("x",), "give the folder of the output with --out"),
        (("--project", "3", "--granularity", "4"), "its own labelling config, granularities and images: leave out"),
        (("--project", "3", "--format", "coco"), "its own labelling config, granularities and images: leave out"),
        (("x", "--out", "out", "--replace"), "--replace deletes predictions in Label Studio: give the project"),
        (("x", "--out", "out", "--label-config", "two.xml"), r"several images per task (im, back), but files hold one"),
        (
            ("--project", "3", "--tolerance", "2"),
            "leave out --label-config, --granularity, --image-key, --format, --tolerance and --path-root",
        ),
        (("--project", "3", "--tolerance", "0"), "leave out --label-config"),
        (("--project", "3", "--path-root", "in"), "leave out --label-config"),
        (
            ("x", "--out", "out", "--format", "coco", "--tolerance", "1"),
            "the format coco has no polygons: leave out --t",
        ),
        (("x", "--out", "out", "--cpus-per-worker", "2"), "--cpus-per-worker is for processes of a cluster: add"),
        (("--project", "3"), "set LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY"),
        (("nowhere", "--out", "out"), "'nowhere' does not exist"),
    ],
)
def test_unusable_arguments_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("two.xml").write_text(TWO_IMAGES)
    Path("bytes.xml").write_bytes(CONFIG.encode("utf-16"))
    Path("empty.xml").write_text("\n")
    result = walkcut("prelabel", *arguments)
    assert result.exit_code == 1
    assert message in result.stderr


@pytest.fixture
def studio(monkeypatch: pytest.MonkeyPatch) -> FakeLabelStudio:
    """The Label Studio of the settings, with two tasks."""
    fake = FakeLabelStudio([task(1), task(2)], CONFIG)
    monkeypatch.setenv("LABEL_STUDIO_URL", "http://label-studio.test")
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "0123456789abcdef")
    monkeypatch.setattr("walkcut.serving.backend.LabelStudioClient", lambda access, ca_bundle: fake)
    return fake


@pytest.fixture
def learned(state: Path) -> Iterator[ProjectStore]:
    """A store in which project 3 has learned from ten tasks."""
    with closing(ProjectStore(state)) as store:
        store.save_setup("3", CONFIG, {})
        deliver(store, *(created(number, *HALVES, task_id=number) for number in range(1, 11)))
        FeedbackWorker(make_predictor(Settings(state_dir=state)), store).learn_due()
        yield store


def test_predictions_are_added_to_a_project_once_and_replace_earlier_ones(studio: FakeLabelStudio, state: Path) -> None:
    studio.store([{"task": task_id, "model_version": "auto 012345"} for task_id in studio.tasks])
    for _ in range(2):
        result = walkcut("prelabel", "--project", 3, "--workers", 1)
        assert result.exit_code == 0, result.output
        assert "in total 2 done, 0 failed, 0 skipped" in result.stdout
    elsewhere = walkcut("prelabel", "--project", 3, "--workers", 1, "--out", state / "elsewhere")
    assert "in total 0 done, 0 failed, 2 skipped" in elsewhere.stdout
    assert "2 skipped: with predictions of this model version (task 1, task 2)" in elsewhere.stderr
    studio.annotated = {1}
    annotated = walkcut("prelabel", "--project", 3, "--workers", 1)
    assert "in total 2 done, 0 failed, 1 skipped" in annotated.stdout
    assert "1 skipped: annotated (tasks of project 3)" in annotated.stderr
    studio.annotated = set()
    (request,) = studio.requests
    assert sorted(prediction["task"] for prediction in request) == [1] * 4 + [2] * 4
    assert len({prediction["model_version"] for prediction in request}) == 4
    assert len(list((state / "prelabel" / "project-3").iterdir())) == 1
    result = walkcut("prelabel", "--project", 3, "--workers", 1, "--replace")
    assert result.exit_code == 0, result.output
    assert list(studio.stored.values()) == request


def test_predictions_of_a_project_that_has_learned_are_those_of_the_backend(
    studio: FakeLabelStudio, learned: ProjectStore, state: Path
) -> None:
    assert walkcut("prelabel", "--project", 3, "--workers", 1).exit_code == 0
    predictor = make_predictor(Settings(state_dir=state))
    expected = predictor.predict(read_task(task(1)), ProjectCache(predictor, learned).get("3", CONFIG))
    assert [prediction for prediction in studio.stored.values() if prediction["task"] == 1] == [
        {"task": 1, **prediction.as_json()} for prediction in expected
    ]
    assert any("meta" in region for prediction in expected for region in prediction.result)


def test_a_run_into_a_project_is_exported_again_with_what_it_has_learned(
    studio: FakeLabelStudio, learned: ProjectStore, state: Path, tmp_path: Path
) -> None:
    assert walkcut("prelabel", "--project", 3, "--workers", 1, "--out", tmp_path / "run").exit_code == 0
    again = ("re-export", tmp_path / "run", "--workers", 1, "--out")

    def predictions(name: str, *options: object) -> list[dict[str, Any]]:
        result = walkcut(*again, tmp_path / name, *options)
        assert result.exit_code == 0, result.output
        rows = json.loads((tmp_path / name / "tasks-00001.json").read_text())
        assert [row["data"] for row in rows] == [task(number)["data"] for number in (1, 2)]
        return list(rows[0]["predictions"])

    exported = predictions("learned", "--project", 3)
    assert exported == [
        {key: prediction[key] for key in exported[0]}
        for prediction in studio.stored.values()
        if prediction["task"] == 1
    ]
    assert "Car" in labels(exported)
    coarse = predictions("coarse", "--project", 3, "--granularity", 3)
    assert [prediction["model_version"].partition(" ")[0] for prediction in coarse] == ["3"]
    assert "Car" in labels(coarse)

    refused = walkcut(*again, tmp_path / "refused")
    assert refused.exit_code == 1
    assert "is a run into a Label Studio project: give its id with --project" in refused.stderr
    (tmp_path / "config.xml").write_text(CONFIG)
    assert "Car" not in labels(predictions("unlearned", "--label-config", tmp_path / "config.xml"))
    refused = walkcut(*again, tmp_path / "refused", "--project", 4)
    assert "config of project 4 is not in this database, as the backend was not connected to it here" in refused.stderr
    learned.annotations.delete("3", range(1, 11))
    assert "Car" not in labels(predictions("deleted", "--project", 3))


def labels(predictions: list[dict[str, Any]]) -> set[str]:
    return {region["value"]["brushlabels"][0] for prediction in predictions for region in prediction["result"]}


def test_a_killed_run_continues_with_the_same_result(tmp_path: Path) -> None:
    """SIGKILL twice and SIGTERM once, at random times."""
    write_images(tmp_path / "in", 40, 160)
    arguments = ("prelabel", tmp_path / "in", "--format", "png", "--workers", 2, "--no-trees")
    run_dir, rng = tmp_path / "out", random.Random(0)
    for signal_number in (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM):
        with start_walkcut(*arguments, "--out", run_dir) as process:
            wait_for_lines(run_dir, len(done_lines(run_dir)) + rng.randint(1, 8))
            time.sleep(rng.random() / 20)
            status, stderr = end_with(process, signal_number)
        if signal_number == signal.SIGTERM:
            assert status == 130
            assert "images done; the same command continues from there" in stderr
        else:
            assert status == -signal.SIGKILL
    assert walkcut(*arguments, "--out", run_dir).exit_code == 0
    assert sorted(json.loads(line)["key"] for line in done_lines(run_dir)) == sorted(str(index) for index in range(40))
    assert walkcut(*arguments, "--out", tmp_path / "whole").exit_code == 0
    assert output_files(run_dir) == output_files(tmp_path / "whole")
    assert len(output_files(run_dir)) == 41
