from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.builders.bulk import done_by_key, echo, echo_worker, make_run_dir, refusing_factory
from walkcut.bulk.checkpoint import STAGING
from walkcut.bulk.engines.ray_actors import Pool, PoolWorker, Stage, from_table, to_table
from walkcut.bulk.items import Item, ItemFailure, Outcome
from walkcut.bulk.workers import Worker
from walkcut.errors import SettingsError


class Killed(BaseException):
    """Simulates the death of the process, after which no code of it runs."""


def run_or_die(item: Item | ItemFailure) -> Outcome:
    if isinstance(item, Item) and item.reference == "die":
        raise Killed
    return echo(item)


def dying_worker() -> Worker:
    """Return a worker that dies of some images."""
    return Worker(run_or_die)


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    return make_run_dir(tmp_path) / STAGING


def worker(
    notes: Path, make_worker: Callable[[], Worker] = dying_worker, markers: dict[Path, str] | None = None
) -> PoolWorker:
    return PoolWorker(Pool(0, Stage(make_worker), 1, notes, markers or {}))


def results(worker: PoolWorker, jobs: list[Any]) -> list[Any]:
    return [value for table in worker(to_table(jobs)) for value in from_table(table)]


def test_notes_of_a_finished_block_are_deleted(notes: Path) -> None:
    jobs = [Item("a", ""), ItemFailure("bad", "?", "read", "no"), Item("b", "")]
    assert done_by_key(results(worker(notes), jobs)) == {"a": True, "bad": False, "b": True}
    assert list(notes.iterdir()) == []


def test_an_image_that_kills_its_process_fails_alone_after_three_deaths(notes: Path) -> None:
    jobs = [Item("a", ""), Item("bad", "die"), Item("b", "")]
    for _ in range(3):  # with the block, and twice alone
        with pytest.raises(Killed):
            results(worker(notes), jobs)
    outcomes = results(worker(notes), jobs)
    assert done_by_key(outcomes) == {"a": True, "bad": False, "b": True}
    failure = next(outcome for outcome in outcomes if isinstance(outcome, ItemFailure))
    assert (failure.key, failure.reference, failure.stage) == ("bad", "die", "work")
    assert "each process that ran it died, 2 times" in failure.reason
    assert "more --cpus-per-worker, or scale large images down" in failure.reason
    assert list(notes.iterdir()) == []


def test_a_worker_that_cannot_be_made_is_not_retried_for_ever(notes: Path) -> None:
    def dying() -> Worker:
        raise Killed

    for _ in range(3):
        with pytest.raises(Killed):
            results(worker(notes, dying), [Item("a", "")])
    assert done_by_key(results(worker(notes, dying), [Item("a", "")])) == {"a": False}


def test_an_error_that_ends_the_run_is_passed_on(notes: Path) -> None:
    (error,) = results(worker(notes, refusing_factory), [Item("a", "")])
    assert isinstance(error, SettingsError)
    (passed,) = results(worker(notes), [error])
    assert str(passed) == "no such model: choose another"


def test_a_folder_without_notes_ends_the_run(tmp_path: Path) -> None:
    (error,) = results(worker(tmp_path / "missing"), [Item("a", "")])
    assert isinstance(error, SettingsError)
    assert "attempts cannot be noted" in str(error)


def test_a_machine_that_sees_another_folder_runs_nothing(notes: Path) -> None:
    (error,) = results(worker(notes, markers={notes / "none": ""}), [Item("a", "")])
    assert "does not see" in str(error)
    assert list(notes.iterdir()) == []


@pytest.mark.parametrize(("cpus", "threads"), [(0.5, 1), (3, 3)])
def test_a_process_has_as_many_threads_as_cores(
    cpus: float, threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", counts.append)
    Pool(0, Stage(echo_worker, cpus), 1, tmp_path, {}).start_worker()
    assert counts == [threads]
