import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest

from tests.builders.bulk import IMAGE_TAG, make_plan, make_result, quick_segmenter, write_image
from tests.builders.fake_label_studio import FakeLabelStudio
from tests.builders.label_config import make_image_tag
from walkcut.bulk import checkpoint as checkpoints
from walkcut.bulk import sinks
from walkcut.bulk.checkpoint import open_checkpoint
from walkcut.bulk.items import Item, ItemFailure, ItemPrediction, ItemResult, Outcome, RegionPrediction, Skipped
from walkcut.bulk.jsonl import append_line
from walkcut.bulk.plan import Plan
from walkcut.bulk.runner import run, run_settings
from walkcut.bulk.sinks import LabelStudioSink, TaskFormat, merge_predictions
from walkcut.bulk.sources.tasks import project_items
from walkcut.bulk.workers import make_full_worker
from walkcut.errors import LabelStudioError
from walkcut.hierarchy.granularity import Level, Segments, Threshold
from walkcut.inference.project import Project, ProjectOptions, is_model_version, model_version
from walkcut.labelstudio.predictions import Region, make_prediction
from walkcut.labelstudio.tasks import Task
from walkcut.learning.profile import ProjectProfile

OLD = ("auto 012345", "tau=0.4 89abcd")
OTHERS = ("sam-2", "merged 7")


def tasks_with_images(folder: Path, count: int) -> list[dict[str, Any]]:
    return [{"id": task, "data": {"image": str(write_image(folder / f"{task}.png"))}} for task in range(1, count + 1)]


def process_files(plan: Plan, run_dir: Path, jobs: Iterable[Item | ItemFailure]) -> Iterator[Outcome]:
    """Process tasks whose references are paths, which the image loader would not read."""
    worker = make_full_worker(plan, run_dir, quick_segmenter)
    for job in jobs:
        outcome = worker(replace(job, task_id=None) if isinstance(job, Item) else job)
        yield replace(outcome, item=job) if isinstance(outcome, ItemResult) and isinstance(job, Item) else outcome


def project_jobs(studio: FakeLabelStudio, plan: Plan) -> Iterator[Item | ItemFailure | Skipped]:
    return project_items(studio.unannotated_tasks("3"), plan.project.image_tags, plan.versions[-1])


def predict_project(
    studio: FakeLabelStudio, run_dir: Path, plan: Plan, *, replacing: bool = False, retry_failed: bool = False
) -> int:
    """Predict the tasks of a project; return how many images are done in all."""
    with open_checkpoint(run_dir, run_settings(plan), retry_failed=retry_failed) as checkpoint:
        sink = LabelStudioSink(checkpoint, studio, "3", plan.project, plan.versions, replacing=replacing)
        run(project_jobs(studio, plan), lambda jobs: process_files(plan, run_dir, jobs), checkpoint, sink)
        return checkpoint.done


def predictions_of(*versions: str, task: int = 1) -> list[dict[str, Any]]:
    return [{"task": task, "model_version": version} for version in versions]


@pytest.fixture
def plan() -> Plan:
    return make_plan(TaskFormat((IMAGE_TAG,)), (Level.COARSE, Level.MEDIUM, Level.AUTO))


@pytest.fixture(autouse=True)
def without_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinks, "_MAX_ATTEMPTS", 1)


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinks, "_MAX_PREDICTIONS", 20)


@pytest.mark.usefixtures("small_batches")
def test_predictions_of_a_task_go_in_one_request(tmp_path: Path, plan: Plan) -> None:
    studio = FakeLabelStudio(tasks_with_images(tmp_path / "in", 15))
    assert predict_project(studio, tmp_path / "out", plan) == 15
    assert [len(request) for request in studio.requests] == [18, 18, 9]
    assert all(studio.versions_of(task) == list(plan.versions) for task in studio.tasks)


def test_requests_have_a_maximum_size(tmp_path: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    studio = FakeLabelStudio(tasks_with_images(tmp_path / "in", 5))
    predict_project(studio, tmp_path / "whole", plan)
    (request,) = studio.requests
    monkeypatch.setattr(sinks, "_MAX_BYTES", len(json.dumps(request[:6])))
    studio = FakeLabelStudio(tasks_with_images(tmp_path / "in", 5))
    predict_project(studio, tmp_path / "parts", plan)
    assert [len(request) for request in studio.requests] == [6, 6, 3]


@pytest.mark.usefixtures("small_batches")
def test_an_interrupted_run_into_a_project_continues(tmp_path: Path, plan: Plan) -> None:
    studio = FakeLabelStudio(tasks_with_images(tmp_path / "in", 15), max_requests=1)
    with pytest.raises(LabelStudioError):
        predict_project(studio, tmp_path / "out", plan)
    studio.max_requests = 99
    assert predict_project(studio, tmp_path / "out", plan) == 15
    assert all(studio.versions_of(task) == list(plan.versions) for task in studio.tasks)


class _KilledError(BaseException):
    """Ends a run at once, as SIGKILL does."""


class KillPoints:
    """Points before and after calls of functions; the run is killed at one of them."""

    def __init__(self, point: int) -> None:
        self.left = point

    def pass_one(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise _KilledError

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            self.pass_one()
            result = function(*args, **options)
            self.pass_one()
            return result

        return call

    def append_line(self, file: IO[bytes], line: Mapping[str, Any]) -> None:
        """Append a line, with a point in the midst of it."""
        half = json.dumps(line).encode()[:20]
        if not self.left:
            file.write(half)
            file.flush()
        self.pass_one()
        append_line(file, line)


@pytest.mark.parametrize("images_per_task", [1, 2])
def test_a_run_that_is_killed_at_any_point_comes_to_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, images_per_task: int
) -> None:
    """Points lie before and after each request, and before, within and after each write to the checkpoint."""
    image_tags = tuple(make_image_tag(f"$image{n}", name=f"image{n}", control=f"c{n}") for n in range(images_per_task))
    plan = make_plan(TaskFormat(image_tags), (Level.COARSE, Level.AUTO))
    plan = replace(plan, project=replace(plan.project, image_tags=image_tags))
    monkeypatch.setattr(sinks, "_MAX_PREDICTIONS", 4)  # two tasks
    image = str(write_image(tmp_path / "a.png"))
    tasks = [
        {"id": task, "data": dict.fromkeys((image_tag.value[1:] for image_tag in image_tags), image)}
        for task in range(1, 6)
    ]
    for point in count():
        studio, run_dir, kill = FakeLabelStudio(tasks), tmp_path / str(point), KillPoints(point)
        with monkeypatch.context() as patch:
            for owner, name in (
                (FakeLabelStudio, "add_predictions"),
                (FakeLabelStudio, "versions"),
                (checkpoints.Checkpoint, "announce"),
                (checkpoints.Checkpoint, "save"),
            ):
                patch.setattr(owner, name, kill.around(getattr(owner, name)))
            patch.setattr(checkpoints, "append_line", kill.append_line)
            try:
                predict_project(studio, run_dir, plan)
            except _KilledError:
                pass
            else:
                break
        assert predict_project(studio, run_dir, plan) == 5 * images_per_task
        assert {task: studio.versions_of(task) for task in studio.tasks} == {
            task: list(plan.versions) for task in studio.tasks
        }
        entries = list(checkpoints.read_entries(run_dir))
        assert [entry.item.task_id for entry in entries] == [task for task in range(1, 6) for _ in image_tags]
    assert point > 20


class SlowLabelStudio(FakeLabelStudio):
    """Does not answer the first request in time, and stores its predictions when it is next asked for tasks."""

    delayed: Sequence[Mapping[str, Any]] = ()

    def add_predictions(self, project: str, predictions: Sequence[Mapping[str, Any]]) -> None:
        if not self.requests:
            self.requests.append([])
            self.delayed = predictions
            raise LabelStudioError("took longer than 30 s")
        super().add_predictions(project, predictions)

    def versions(self, project: str, task_ids: Collection[int]) -> dict[int, frozenset[str]]:
        delayed, self.delayed = self.delayed, ()
        self.store(delayed)
        return super().versions(project, task_ids)


def test_a_request_without_a_response_adds_no_duplicates(tmp_path: Path, plan: Plan) -> None:
    studio = SlowLabelStudio(tasks_with_images(tmp_path / "in", 4))
    with pytest.raises(LabelStudioError):
        predict_project(studio, tmp_path / "out", plan)
    assert not studio.stored
    assert predict_project(studio, tmp_path / "out", plan) == 4
    assert all(studio.versions_of(task) == list(plan.versions) for task in studio.tasks)


def test_predictions_that_come_in_late_are_counted(tmp_path: Path, plan: Plan) -> None:
    """The killed run's request is carried out when the next run has asked for it, and has not listed the tasks."""

    class LateLabelStudio(SlowLabelStudio):
        def versions(self, project: str, task_ids: Collection[int]) -> dict[int, frozenset[str]]:
            return FakeLabelStudio.versions(self, project, task_ids)

        def unannotated_tasks(self, project: str) -> Iterator[tuple[dict[str, Any], frozenset[str]]]:
            self.store(self.delayed)
            self.delayed = ()
            return super().unannotated_tasks(project)

    studio = LateLabelStudio(tasks_with_images(tmp_path / "in", 4))
    with pytest.raises(LabelStudioError):
        predict_project(studio, tmp_path / "out", plan)
    jobs = (job for studios in [studio] for job in project_jobs(studios, plan))  # listed when the run has begun
    with open_checkpoint(tmp_path / "out", run_settings(plan)) as checkpoint:
        sink = LabelStudioSink(checkpoint, studio, "3", plan.project, plan.versions)
        run(jobs, lambda jobs: process_files(plan, tmp_path / "out", jobs), checkpoint, sink)
        assert checkpoint.done == 4
    assert all(studio.versions_of(task) == list(plan.versions) for task in studio.tasks)


def test_a_retried_request_leaves_out_stored_predictions(
    tmp_path: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sinks, "_MAX_ATTEMPTS", 3)
    monkeypatch.setattr(sinks, "_RETRY_WAITS_S", (0,))
    studio = SlowLabelStudio(tasks_with_images(tmp_path / "in", 4))
    assert predict_project(studio, tmp_path / "out", plan) == 4
    assert all(studio.versions_of(task) == list(plan.versions) for task in studio.tasks)


def test_versions_that_a_task_has_are_not_added_again(tmp_path: Path, plan: Plan) -> None:
    studio = FakeLabelStudio(tasks_with_images(tmp_path / "in", 2))
    studio.store([*predictions_of(plan.versions[1]), *predictions_of("other", task=2)])
    predict_project(studio, tmp_path / "out", plan)
    assert studio.versions_of(1) == [plan.versions[1], plan.versions[0], plan.versions[2]]
    assert studio.versions_of(2) == ["other", *plan.versions]
    predict_project(studio, tmp_path / "elsewhere", plan)
    assert len(studio.versions_of(1)) == 3


def test_deleted_predictions_are_made_again(tmp_path: Path, plan: Plan) -> None:
    studio = FakeLabelStudio(tasks_with_images(tmp_path / "in", 2))
    predict_project(studio, tmp_path / "out", plan)
    first = dict(studio.stored)
    studio.stored.clear()
    assert predict_project(studio, tmp_path / "out", plan) == 2
    assert list(studio.stored.values()) == list(first.values())
    assert len((tmp_path / "out" / ".walkcut" / "done.jsonl").read_text().splitlines()) == 2


def test_a_failed_image_is_tried_again_on_request(tmp_path: Path, plan: Plan) -> None:
    studio = FakeLabelStudio(tasks_with_images(tmp_path / "in", 2))
    content = (tmp_path / "in" / "1.png").read_bytes()
    (tmp_path / "in" / "1.png").write_text("no image")
    assert predict_project(studio, tmp_path / "out", plan) == 1
    (tmp_path / "in" / "1.png").write_bytes(content)
    assert predict_project(studio, tmp_path / "out", plan) == 1
    assert predict_project(studio, tmp_path / "out", plan, retry_failed=True) == 2


class Shrinking(FakeLabelStudio):
    """Loses a task after it was listed."""

    def unannotated_tasks(self, project: str) -> Iterator[tuple[dict[str, Any], frozenset[str]]]:
        yield from list(super().unannotated_tasks(project))
        self.tasks.pop(1)


def test_a_task_that_was_deleted_meanwhile_costs_no_other(tmp_path: Path, plan: Plan) -> None:
    studio = Shrinking(list(FakeLabelStudio(tasks_with_images(tmp_path / "in", 2)).tasks.values()))
    assert predict_project(studio, tmp_path / "out", plan) == 1
    assert (studio.versions_of(1), studio.versions_of(2)) == ([], list(plan.versions))


def test_an_interrupted_run_keeps_its_finished_images(tmp_path: Path, plan: Plan) -> None:
    def interrupted(jobs: Iterable[object]) -> Iterator[Outcome]:
        record: dict[str, object] = {"predictions": [{"model_version": "v", "result": [], "score": 0}]}
        yield replace(make_result("task-1", record), item=Item("task-1", "/1.jpg", task_id=1))
        raise KeyboardInterrupt

    with open_checkpoint(tmp_path, {}) as checkpoint:
        sink = LabelStudioSink(
            checkpoint, FakeLabelStudio(tasks_with_images(tmp_path / "in", 1)), "3", plan.project, plan.versions
        )
        with pytest.raises(KeyboardInterrupt):
            run([], interrupted, checkpoint, sink)
        assert checkpoint.done == 1


def test_several_images_of_a_task_are_one_prediction(tmp_path: Path) -> None:
    image_tags = (IMAGE_TAG, make_image_tag("$back", name="back", control="other"))
    project = Project(image_tags, ProjectOptions())
    plan = replace(make_plan(TaskFormat(image_tags), (Level.COARSE, Level.AUTO)), project=project)
    paths = [str(write_image(tmp_path / "in" / f"{index}.png", 24 + 8 * index)) for index in range(6)]
    data = [dict(zip(("image", "back"), pair, strict=True)) for pair in (paths[:2], paths[2:4], [paths[4], "missing"])]
    studio = FakeLabelStudio([{"id": task, "data": images} for task, images in enumerate([*data, {"image": "x"}], 1)])
    assert predict_project(studio, tmp_path / "out", plan) == 5
    assert [studio.versions_of(task) for task in range(1, 5)] == [list(plan.versions)] * 3 + [[]]
    failures = [json.loads(line) for line in (tmp_path / "out" / "failed.jsonl").read_text().splitlines()]
    assert {failure["key"] for failure in failures} == {"task-3-2", "task-4-1", "task-4-2"}
    coarse = next(iter(studio.stored.values()))
    assert [(region["from_name"], region["original_height"]) for region in coarse["result"]] == [("brush", 24)] * 2 + [
        ("other", 32)
    ] * 2


def test_images_of_a_task_are_merged_as_in_the_backend() -> None:
    image_tags = (IMAGE_TAG, make_image_tag("$back", name="back", control="other"))
    task, masks = Task(5, {"image": "a", "back": "b"}), np.eye(4, dtype=bool).reshape(4, 2, 2)
    regions = [
        Region(mask, "Region", score, ("a note",)) for mask, score in zip(masks, (0.1, 0.2, 0.7, 1), strict=True)
    ]
    halves = (regions[:3], regions[3:])
    images = [
        TaskFormat(image_tags).encode(
            ItemPrediction(
                Item("a", "a", task.data, 5, index),
                (2, 2),
                [RegionPrediction("v", half)],
            )
        )
        for index, half in enumerate(halves)
    ]
    merged = merge_predictions([image.record["predictions"] for image in images])
    assert merged == [make_prediction(zip(task.images(image_tags), halves, strict=True), "v").as_json()]
    assert merge_predictions([[{"result": [], "score": 0, "model_version": "v"}]])[0]["score"] == 0


def test_earlier_predictions_are_replaced_only_on_request(tmp_path: Path, plan: Plan) -> None:
    studio = FakeLabelStudio(tasks_with_images(tmp_path / "in", 1))
    studio.store(predictions_of(*OLD, *OTHERS))
    predict_project(studio, tmp_path / "out", plan)
    assert studio.versions_of(1) == [*OLD, *OTHERS, *plan.versions]
    for _ in range(2):
        predict_project(studio, tmp_path / "out", plan, replacing=True)
        assert studio.versions_of(1) == [*OTHERS, *plan.versions]


def test_predictions_that_annotators_may_need_are_kept(tmp_path: Path, plan: Plan) -> None:
    """One of five tasks is untouched; others were skipped, annotated during or before the run, or failed."""

    class AnnotatedMeanwhile(FakeLabelStudio):
        def predictions(self, task_id: int) -> dict[int, str]:
            self.annotated |= {3} & {task_id}
            return super().predictions(task_id)

    studio = AnnotatedMeanwhile(tasks_with_images(tmp_path / "in", 5))
    studio.tasks[5]["data"]["image"] = "missing"
    for task in studio.tasks:
        studio.store(predictions_of(OLD[0], OLD[1], task=task))
    studio.chosen, studio.skipped, studio.annotated = OLD[1], {2}, {4}
    predict_project(studio, tmp_path / "out", plan, replacing=True)
    assert {task: OLD[0] in studio.versions_of(task) for task in studio.tasks} == {
        1: False,
        2: True,
        3: True,
        4: True,
        5: True,
    }
    assert all(OLD[1] in studio.versions_of(task) for task in studio.tasks), "the project's settings choose it"


def test_interrupted_replacing_continues(tmp_path: Path, plan: Plan) -> None:
    class FailingLabelStudio(FakeLabelStudio):
        deletions = 3

        def delete_prediction(self, prediction_id: int) -> None:
            if not self.deletions:
                raise LabelStudioError("Label Studio is unavailable")
            self.deletions -= 1
            super().delete_prediction(prediction_id)

    studio = FailingLabelStudio(tasks_with_images(tmp_path / "in", 4))
    for task in studio.tasks:
        studio.store(predictions_of(*OLD, task=task))
    with pytest.raises(LabelStudioError):
        predict_project(studio, tmp_path / "out", plan, replacing=True)
    assert len(studio.stored) == 4 * 5 - 3
    studio.deletions = 99
    predict_project(studio, tmp_path / "out", plan, replacing=True)
    assert all(studio.versions_of(task) == list(plan.versions) for task in studio.tasks)


@pytest.mark.usefixtures("small_batches")
def test_nothing_is_deleted_before_new_predictions_are_added(tmp_path: Path, plan: Plan) -> None:
    studio = FakeLabelStudio(tasks_with_images(tmp_path / "in", 15), max_requests=2)
    for task in studio.tasks:
        studio.store(predictions_of(OLD[0], task=task))
    with pytest.raises(LabelStudioError):
        predict_project(studio, tmp_path / "out", plan, replacing=True)
    assert all(OLD[0] in studio.versions_of(task) for task in studio.tasks)


@pytest.mark.parametrize("granularity", [*Level, Segments(12), Threshold(0.4)])
def test_versions_of_walkcut_are_short_and_recognised(plan: Plan, granularity: Any) -> None:
    learned = plan.project.with_profile(ProjectProfile(granularity))
    for version in (model_version("any", plan.project, granularity), model_version("any", learned, granularity)):
        assert is_model_version(version)
        assert len(version) <= 15  # Label Studio shows no more of a tab's title
    assert model_version("any", plan.project, granularity).startswith(f"{granularity} ")
    assert model_version("any", learned, granularity).startswith("learned ")
    others = (*OTHERS, "merged 123456", "", None, "auto 01234", "my auto 012345", "walkcut")
    assert not any(map(is_model_version, others))
