from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.bulk.stand_ins import TARGET, done, picture, plan_for, quick_segmenter
from walkcut.bulk.formats import LabelStudioFormat
from walkcut.bulk.items import Item
from walkcut.bulk.ledger import Done, Failure, Outcome, open_ledger
from walkcut.bulk.runs import carry_out, fingerprint
from walkcut.bulk.sinks import StudioSink
from walkcut.bulk.sources import project_items
from walkcut.bulk.work import Plan, make_labeller
from walkcut.errors import StudioError
from walkcut.segmentation.granularity import Level
from walkcut.studio import Studio


class Held(Studio):
    """A Label Studio with tasks, which remembers what it is given, in requests; refuses those after `patience`."""

    def __init__(self, folder: Path, count: int, patience: int = 99) -> None:
        self.tasks = {
            number: {"id": number, "data": {"image": str(picture(folder / f"{number}.png"))}}
            for number in range(1, count + 1)
        }
        self.requests: list[list[Mapping[str, Any]]] = []
        self.patience = patience

    def versions(self, task: int) -> list[str]:
        return [each["model_version"] for request in self.requests for each in request if each["task"] == task]

    def unannotated(self, project: str) -> Iterator[tuple[dict[str, Any], frozenset[str]]]:
        for number, task in self.tasks.items():
            yield task, frozenset(self.versions(number))

    def add_predictions(self, project: str, predictions: Sequence[Mapping[str, Any]]) -> None:
        if len(self.requests) == self.patience:
            raise StudioError("Label Studio is away")
        self.requests.append(list(predictions))


def into_studio(studio: Held, out: Path, plan: Plan) -> None:
    def local(jobs: Iterable[Item | Failure]) -> Iterator[Outcome]:
        labeller = make_labeller(plan, quick_segmenter)
        for job in jobs:  # a task's reference is fetched, as a rule: here it is a file
            assert isinstance(job, Item)
            done = labeller(Item(job.key, job.reference, job.data))
            assert isinstance(done, Done)
            yield Done(job, done.output, done.tree, done.tree_file, done.seconds)

    with open_ledger(out, fingerprint(plan)) as ledger:
        sink = StudioSink(ledger, studio, "3", plan.versions)
        carry_out(project_items(sink.tasks(), TARGET, plan.versions), local, ledger, sink)


@pytest.fixture
def plan() -> Plan:
    return plan_for(LabelStudioFormat(TARGET), (Level.COARSE, Level.FINE, Level.AUTO))


def test_predictions_of_a_task_go_in_one_request(tmp_path: Path, plan: Plan) -> None:
    studio = Held(tmp_path / "in", 15)
    into_studio(studio, tmp_path / "out", plan)
    assert [len(request) for request in studio.requests] == [18, 18, 9]
    assert all(studio.versions(number) == list(plan.versions) for number in studio.tasks)


def test_a_run_into_a_project_goes_on_after_it_was_ended(tmp_path: Path, plan: Plan) -> None:
    studio = Held(tmp_path / "in", 15, patience=1)
    with pytest.raises(StudioError):
        into_studio(studio, tmp_path / "out", plan)
    studio.patience = 99
    into_studio(studio, tmp_path / "out", plan)
    assert all(studio.versions(number) == list(plan.versions) for number in studio.tasks)


def test_versions_that_a_task_has_are_not_sent_again(tmp_path: Path, plan: Plan) -> None:
    studio = Held(tmp_path / "in", 2)
    studio.requests.append([{"task": 1, "model_version": plan.versions[1]}, {"task": 2, "model_version": "other"}])
    into_studio(studio, tmp_path / "out", plan)
    assert studio.versions(1) == [plan.versions[1], plan.versions[0], plan.versions[2]]
    assert studio.versions(2) == ["other", *plan.versions]
    into_studio(studio, tmp_path / "elsewhere", plan)
    assert len(studio.versions(1)) == 3


def test_what_is_finished_is_kept_when_a_run_is_interrupted(tmp_path: Path, plan: Plan) -> None:
    def interrupted(jobs: Iterable[object]) -> Iterator[Outcome]:
        yield done("task-1", {"predictions": []})
        raise KeyboardInterrupt

    with open_ledger(tmp_path, {}) as ledger:
        sink = StudioSink(ledger, Held(tmp_path / "in", 0), "3", plan.versions)
        with pytest.raises(KeyboardInterrupt):
            carry_out([], interrupted, ledger, sink)
        assert ledger.done == 1
