from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.builders.bulk import Echo, refuse, run_folder
from walkcut.bulk.checkpoint import ItemFailure, ItemResult, Outcome, parts_folder
from walkcut.bulk.engines.local import Worker
from walkcut.bulk.engines.ray_actors import Pool, PoolWorker, Stage, from_table, to_table
from walkcut.bulk.items import Item
from walkcut.errors import SettingsError


class Killed(BaseException):
    """Stands for the end of the process, after which none of its code runs."""


class Deadly(Echo):
    """Work that no process survives for some images."""

    def run(self, item: Item | ItemFailure) -> Outcome:
        if isinstance(item, Item) and item.reference == "die":
            raise Killed
        return super().run(item)


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    return parts_folder(run_folder(tmp_path))


def worker(notes: Path, make: Callable[[], Worker] = Deadly, marks: dict[Path, str] | None = None) -> PoolWorker:
    return PoolWorker(Pool(0, Stage(make), 1, notes, marks or {}))


def results(worker: PoolWorker, jobs: list[Any]) -> list[Any]:
    return [value for table in worker(to_table(jobs)) for value in from_table(table)]


def keys(outcomes: list[Any]) -> dict[str, bool]:
    return dict((each.item.key, True) if isinstance(each, ItemResult) else (each.key, False) for each in outcomes)


def test_a_block_is_done_without_a_trace(notes: Path) -> None:
    jobs = [Item("a", ""), ItemFailure("bad", "?", "read", "no"), Item("b", "")]
    assert keys(results(worker(notes), jobs)) == {"a": True, "bad": False, "b": True}
    assert list(notes.iterdir()) == []


def test_a_image_that_no_process_survives_fails_alone_after_three_deaths(notes: Path) -> None:
    jobs = [Item("a", ""), Item("bad", "die"), Item("b", "")]
    for _ in range(3):  # in company, and twice alone
        with pytest.raises(Killed):
            results(worker(notes), jobs)
    outcomes = results(worker(notes), jobs)
    assert keys(outcomes) == {"a": True, "bad": False, "b": True}
    failure = next(each for each in outcomes if isinstance(each, ItemFailure))
    assert (failure.key, failure.reference, failure.stage) == ("bad", "die", "work")
    assert "each process at work on it ended, 2 times" in failure.reason
    assert "more --cpus-per-worker, or scale large images down" in failure.reason
    assert list(notes.iterdir()) == []


def test_no_process_is_begun_for_ever(notes: Path) -> None:
    def die() -> Echo:
        raise Killed

    for _ in range(3):
        with pytest.raises(Killed):
            results(worker(notes, die), [Item("a", "")])
    assert keys(results(worker(notes, die), [Item("a", "")])) == {"a": False}


def test_what_is_to_end_the_run_goes_on_to_the_end(notes: Path) -> None:
    (error,) = results(worker(notes, refuse), [Item("a", "")])
    assert isinstance(error, SettingsError)
    (passed,) = results(worker(notes), [error])
    assert str(passed) == "no such model: choose another"


def test_a_folder_that_takes_no_notes_ends_the_run(tmp_path: Path) -> None:
    (error,) = results(worker(tmp_path / "gone"), [Item("a", "")])
    assert isinstance(error, SettingsError)
    assert "notes cannot be taken" in str(error)


def test_a_machine_that_sees_another_folder_does_nothing(notes: Path) -> None:
    (error,) = results(worker(notes, marks={notes / "none": ""}), [Item("a", "")])
    assert "does not see" in str(error)
    assert list(notes.iterdir()) == []


@pytest.mark.parametrize(("cpus", "threads"), [(0.5, 1), (3, 3)])
def test_a_process_has_as_many_threads_as_cores(
    cpus: float, threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    Pool(0, Stage(Echo, cpus), 1, tmp_path, {}).begin()
    assert asked == [threads]
