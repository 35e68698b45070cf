import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.builders.bulk import CONTROL, done, make_image, plan_for, quick_segmenter
from tests.builders.held_studio import HeldStudio
from walkcut.bulk import sinks
from walkcut.bulk.checkpoint import ItemFailure, ItemResult, Outcome, open_checkpoint
from walkcut.bulk.items import Item, ItemPrediction, RegionPrediction
from walkcut.bulk.runner import fingerprint, run
from walkcut.bulk.sinks import LabelStudioSink, TaskFormat, is_replaceable, merge_predictions
from walkcut.bulk.sources.scan import project_items
from walkcut.bulk.steps import Plan, make_full_worker
from walkcut.errors import LabelStudioError
from walkcut.hierarchy.granularity import Level, Segments, Threshold
from walkcut.inference.project import Project, ProjectOptions, model_version
from walkcut.labelstudio import Region, Task, prediction

OLD = ("auto-walkcut-merge-01234567", "tau=0.4-walkcut-ncut+merge-89abcdef")
OTHERS = ("sam-2", "folded-walkcut-7")


def studio_with(folder: Path, count: int, patience: int = 99) -> HeldStudio:
    numbers = range(1, count + 1)
    data = [{"image": str(make_image(folder / f"{number}.png"))} for number in numbers]
    return HeldStudio([{"id": n, "data": each} for n, each in zip(numbers, data, strict=True)], patience=patience)


def of_files(plan: Plan, out: Path, jobs: Iterable[Item | ItemFailure]) -> Iterator[Outcome]:
    labeller = make_full_worker(plan, out, quick_segmenter)
    for job in jobs:  # a task's reference is fetched, as a rule: here it is a file
        outcome = labeller(replace(job, task=None) if isinstance(job, Item) else job)
        yield replace(outcome, item=job) if isinstance(outcome, ItemResult) and isinstance(job, Item) else outcome


def into_studio(
    studio: HeldStudio, out: Path, plan: Plan, *, replacing: bool = False, retry_failed: bool = False
) -> int:
    """Label a project; how many images are done in all."""
    controls = plan.project.controls
    with open_checkpoint(out, fingerprint(plan), retry_failed=retry_failed) as checkpoint:
        sink = LabelStudioSink(checkpoint, studio, "3", plan.project, plan.versions, replacing=replacing)
        items = project_items(studio.unannotated_tasks("3"), controls, plan.versions)
        run(items, lambda jobs: of_files(plan, out, jobs), checkpoint, sink)
        return checkpoint.done


def predictions_of(*versions: str, task: int = 1) -> list[dict[str, Any]]:
    return [{"task": task, "model_version": version} for version in versions]


@pytest.fixture
def plan() -> Plan:
    return plan_for(TaskFormat((CONTROL,)), (Level.COARSE, Level.FINE, Level.AUTO))


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that fails is not sent again."""
    monkeypatch.setattr(sinks, "_WAITS_S", ())


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests of a few predictions."""
    monkeypatch.setattr(sinks, "_MOST_PREDICTIONS", 20)


@pytest.mark.usefixtures("small")
def test_predictions_of_a_task_go_in_one_request(tmp_path: Path, plan: Plan) -> None:
    studio = studio_with(tmp_path / "in", 15)
    assert into_studio(studio, tmp_path / "out", plan) == 15
    assert [len(request) for request in studio.requests] == [18, 18, 9]
    assert all(studio.of_task(number) == list(plan.versions) for number in studio.tasks)


def test_requests_are_of_so_many_bytes(tmp_path: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    studio = studio_with(tmp_path / "in", 5)
    into_studio(studio, tmp_path / "whole", plan)
    (request,) = studio.requests
    monkeypatch.setattr(sinks, "_MOST_BYTES", len(json.dumps(request[:6])))
    studio = studio_with(tmp_path / "in", 5)
    into_studio(studio, tmp_path / "parts", plan)
    assert [len(request) for request in studio.requests] == [6, 6, 3]


@pytest.mark.usefixtures("small")
def test_a_run_into_a_project_goes_on_after_it_was_ended(tmp_path: Path, plan: Plan) -> None:
    studio = studio_with(tmp_path / "in", 15, patience=1)
    with pytest.raises(LabelStudioError):
        into_studio(studio, tmp_path / "out", plan)
    studio.patience = 99
    assert into_studio(studio, tmp_path / "out", plan) == 15
    assert all(studio.of_task(number) == list(plan.versions) for number in studio.tasks)


class Slow(HeldStudio):
    """Does not answer a request in time, and takes what was in it only after it has been asked for tasks again."""

    under_way: Sequence[Mapping[str, Any]] = ()

    def add_predictions(self, project: str, predictions: Sequence[Mapping[str, Any]]) -> None:
        if not self.requests:
            self.requests.append([])
            self.under_way = predictions
            raise LabelStudioError("took longer than 30 s")
        super().add_predictions(project, predictions)

    def versions(self, project: str, tasks: Collection[int]) -> dict[int, frozenset[str]]:
        late, self.under_way = self.under_way, ()
        self.take(late)
        return super().versions(project, tasks)


def test_a_request_whose_answer_was_lost_doubles_nothing(tmp_path: Path, plan: Plan) -> None:
    studio = Slow(list(studio_with(tmp_path / "in", 4).tasks.values()))
    with pytest.raises(LabelStudioError):
        into_studio(studio, tmp_path / "out", plan)
    assert not studio.held
    assert into_studio(studio, tmp_path / "out", plan) == 4
    assert all(studio.of_task(number) == list(plan.versions) for number in studio.tasks)


def test_a_request_is_sent_again_without_what_was_taken(
    tmp_path: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sinks, "_WAITS_S", (0, 0))
    studio = Slow(list(studio_with(tmp_path / "in", 4).tasks.values()))
    assert into_studio(studio, tmp_path / "out", plan) == 4
    assert all(studio.of_task(number) == list(plan.versions) for number in studio.tasks)


def test_versions_that_a_task_has_are_not_sent_again(tmp_path: Path, plan: Plan) -> None:
    studio = studio_with(tmp_path / "in", 2)
    studio.take([*predictions_of(plan.versions[1]), *predictions_of("other", task=2)])
    into_studio(studio, tmp_path / "out", plan)
    assert studio.of_task(1) == [plan.versions[1], plan.versions[0], plan.versions[2]]
    assert studio.of_task(2) == ["other", *plan.versions]
    into_studio(studio, tmp_path / "elsewhere", plan)
    assert len(studio.of_task(1)) == 3


def test_predictions_that_were_deleted_are_made_anew(tmp_path: Path, plan: Plan) -> None:
    studio = studio_with(tmp_path / "in", 2)
    into_studio(studio, tmp_path / "out", plan)
    first = dict(studio.held)
    studio.held.clear()
    assert into_studio(studio, tmp_path / "out", plan) == 2
    assert list(studio.held.values()) == list(first.values())
    assert len((tmp_path / "out" / ".walkcut" / "done.jsonl").read_text().splitlines()) == 2


def test_a_image_that_failed_is_tried_again_on_request(tmp_path: Path, plan: Plan) -> None:
    studio = studio_with(tmp_path / "in", 2)
    content = (tmp_path / "in" / "1.png").read_bytes()
    (tmp_path / "in" / "1.png").write_text("no image")
    assert into_studio(studio, tmp_path / "out", plan) == 1
    (tmp_path / "in" / "1.png").write_bytes(content)
    assert into_studio(studio, tmp_path / "out", plan) == 1
    assert into_studio(studio, tmp_path / "out", plan, retry_failed=True) == 2


class Shrinking(HeldStudio):
    """Loses a task after it was listed."""

    def unannotated_tasks(self, project: str) -> Iterator[tuple[dict[str, Any], frozenset[str]]]:
        yield from list(super().unannotated_tasks(project))
        self.tasks.pop(1)


def test_a_task_that_was_deleted_meanwhile_costs_no_other(tmp_path: Path, plan: Plan) -> None:
    studio = Shrinking(list(studio_with(tmp_path / "in", 2).tasks.values()))
    assert into_studio(studio, tmp_path / "out", plan) == 1
    assert (studio.of_task(1), studio.of_task(2)) == ([], list(plan.versions))


def test_what_is_finished_is_kept_when_a_run_is_interrupted(tmp_path: Path, plan: Plan) -> None:
    def interrupted(jobs: Iterable[object]) -> Iterator[Outcome]:
        record: dict[str, object] = {"predictions": [{"model_version": "v", "result": [], "score": 0}]}
        yield replace(done("task-1", record), item=Item("task-1", "/1.jpg", task=1))
        raise KeyboardInterrupt

    with open_checkpoint(tmp_path, {}) as checkpoint:
        sink = LabelStudioSink(checkpoint, studio_with(tmp_path / "in", 1), "3", plan.project, plan.versions)
        with pytest.raises(KeyboardInterrupt):
            run([], interrupted, checkpoint, sink)
        assert checkpoint.done == 1


def test_several_images_of_a_task_are_one_prediction(tmp_path: Path) -> None:
    controls = (CONTROL, replace(CONTROL, from_name="other", to_name="back", data_key="back"))
    project = Project(controls, ProjectOptions())
    plan = replace(plan_for(TaskFormat(controls), (Level.COARSE, Level.AUTO)), project=project)
    paths = [str(make_image(tmp_path / "in" / f"{number}.png", 24 + 8 * number)) for number in range(6)]
    data = [dict(zip(("image", "back"), pair, strict=True)) for pair in (paths[:2], paths[2:4], [paths[4], "gone"])]
    studio = HeldStudio([{"id": number, "data": each} for number, each in enumerate([*data, {"image": "x"}], 1)])
    assert into_studio(studio, tmp_path / "out", plan) == 4
    assert [studio.of_task(number) for number in range(1, 5)] == [list(plan.versions)] * 2 + [[], []]
    failures = [json.loads(line) for line in (tmp_path / "out" / "failed.jsonl").read_text().splitlines()]
    assert {each["key"] for each in failures} == {"task-3-2", "task-4-1"}
    coarse = next(iter(studio.held.values()))
    assert [(each["from_name"], each["original_height"]) for each in coarse["result"]] == [("brush", 24)] * 2 + [
        ("other", 32)
    ] * 2


def test_images_are_put_together_as_the_backend_does() -> None:
    controls = (CONTROL, replace(CONTROL, from_name="other", data_key="back"))
    task, masks = Task(5, {"image": "a", "back": "b"}), np.eye(4, dtype=bool).reshape(4, 2, 2)
    regions = [
        Region(mask, "Region", score, ("a note",)) for mask, score in zip(masks, (0.1, 0.2, 0.7, 1), strict=True)
    ]
    halves = (regions[:3], regions[3:])
    parts = [
        TaskFormat(controls).encode(
            ItemPrediction(
                Item("a", "a", task.data, 5, place),
                (2, 2),
                [RegionPrediction("v", half)],
            )
        )
        for place, half in enumerate(halves)
    ]
    whole = merge_predictions([part.record["predictions"] for part in parts])
    assert whole == [prediction(task, list(zip(controls, halves, strict=True)), "v").as_json()]
    assert merge_predictions([[{"result": [], "score": 0, "model_version": "v"}]])[0]["score"] == 0


def test_earlier_predictions_are_replaced_on_request_alone(tmp_path: Path, plan: Plan) -> None:
    studio = studio_with(tmp_path / "in", 1)
    studio.take(predictions_of(*OLD, *OTHERS))
    into_studio(studio, tmp_path / "out", plan)
    assert studio.of_task(1) == [*OLD, *OTHERS, *plan.versions]
    for _ in range(2):
        into_studio(studio, tmp_path / "out", plan, replacing=True)
        assert studio.of_task(1) == [*OTHERS, *plan.versions]


def test_what_annotators_may_need_is_not_replaced(tmp_path: Path, plan: Plan) -> None:
    """Of five tasks one is free; the others were annotated, skipped, annotated at the last moment, or failed."""

    class Overtaken(HeldStudio):
        def predictions(self, task: int) -> dict[int, str]:
            self.annotated |= {3} & {task}
            return super().predictions(task)

    studio = Overtaken(list(studio_with(tmp_path / "in", 5).tasks.values()))
    studio.tasks[5]["data"]["image"] = "gone"
    for task in studio.tasks:
        studio.take(predictions_of(OLD[0], OLD[1], task=task))
    studio.chosen, studio.skipped, studio.annotated = OLD[1], {2}, {4}
    into_studio(studio, tmp_path / "out", plan, replacing=True)
    assert {task: OLD[0] in studio.of_task(task) for task in studio.tasks} == {
        1: False,
        2: True,
        3: True,
        4: True,
        5: True,
    }
    assert all(OLD[1] in studio.of_task(task) for task in studio.tasks), "the project's settings choose it"


def test_replacing_goes_on_after_it_was_ended(tmp_path: Path, plan: Plan) -> None:
    class Away(HeldStudio):
        left = 3

        def delete_prediction(self, prediction: int) -> None:
            if not self.left:
                raise LabelStudioError("Label Studio is away")
            self.left -= 1
            super().delete_prediction(prediction)

    studio = Away(list(studio_with(tmp_path / "in", 4).tasks.values()))
    for task in studio.tasks:
        studio.take(predictions_of(*OLD, task=task))
    with pytest.raises(LabelStudioError):
        into_studio(studio, tmp_path / "out", plan, replacing=True)
    assert len(studio.held) == 4 * 5 - 3
    studio.left = 99
    into_studio(studio, tmp_path / "out", plan, replacing=True)
    assert all(studio.of_task(task) == list(plan.versions) for task in studio.tasks)


@pytest.mark.usefixtures("small")
def test_nothing_is_deleted_before_the_new_ones_are_in(tmp_path: Path, plan: Plan) -> None:
    studio = studio_with(tmp_path / "in", 15, patience=2)
    for task in studio.tasks:
        studio.take(predictions_of(OLD[0], task=task))
    with pytest.raises(LabelStudioError):
        into_studio(studio, tmp_path / "out", plan, replacing=True)
    assert all(OLD[0] in studio.of_task(task) for task in studio.tasks)


@pytest.mark.parametrize("granularity", [*Level, Segments(12), Threshold(0.4)])
def test_versions_of_walkcut_are_told_from_others(plan: Plan, granularity: Any) -> None:
    for method in ("merge", "ncut+merge", "dwc-paper"):
        assert is_replaceable(model_version("any", method, plan.project, granularity))
    assert not any(
        map(
            is_replaceable,
            (*OTHERS, "folded-walkcut-12345678", "", "auto-walkcut-merge-0123456", "my-auto-walkcut-model", "walkcut"),
        )
    )
