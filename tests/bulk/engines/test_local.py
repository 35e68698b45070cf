import multiprocessing
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.builders.bulk import (
    done_by_key,
    dying_factory,
    echo_worker,
    make_plan,
    make_run_dir,
    quick_segmenter,
    refusing_factory,
    staged_contents,
    write_image,
)
from walkcut.bulk.engines.local import in_processes, model_per_process, shared_model
from walkcut.bulk.items import Item, ItemFailure, ItemResult, Outcome
from walkcut.bulk.workers import Worker
from walkcut.errors import SettingsError

MAX_IN_FLIGHT = 2 * 3  # jobs of two processes


@pytest.fixture(autouse=True, scope="module")
def preloaded() -> None:
    """Load the tests' modules once, for all processes."""
    multiprocessing.set_forkserver_preload(["tests.builders.bulk", "walkcut.bulk.engines.local"])


def items(count: int) -> list[Item]:
    return [Item(str(index), "here") for index in range(count)]


def test_all_jobs_are_done_once_and_failures_pass_through() -> None:
    jobs: list[Item | ItemFailure] = [*items(30), ItemFailure("bad", "?", "source", "no reference")]
    assert done_by_key(in_processes(echo_worker, jobs, processes=2)) == {
        **{str(n): True for n in range(30)},
        "bad": False,
    }


def test_jobs_are_taken_only_as_processes_need_them() -> None:
    taken = 0

    def counted() -> Iterator[Item]:
        nonlocal taken
        for item in items(100):
            taken += 1
            yield item

    outcomes = in_processes(echo_worker, counted(), processes=2)
    for count, _ in enumerate(outcomes):
        assert taken <= count + MAX_IN_FLIGHT
    assert taken == 100


def test_a_process_that_dies_is_replaced_and_its_job_tried_again(tmp_path: Path) -> None:
    jobs = items(10)
    jobs[3:3] = [Item("once", f"die once {tmp_path / 'marker'}")]
    assert done_by_key(in_processes(echo_worker, jobs, processes=2)) == {
        **{str(n): True for n in range(10)},
        "once": True,
    }


def test_a_job_whose_process_dies_twice_fails() -> None:
    jobs = [*items(5), Item("bad", "die"), *items(10)[5:]]
    outcomes = list(in_processes(echo_worker, jobs, processes=2))
    (failure,) = (outcome for outcome in outcomes if isinstance(outcome, ItemFailure))
    assert (failure.key, failure.reference, failure.stage) == ("bad", "die", "work")
    assert "a process ended (exit code -9" in failure.reason
    assert "2 times: use fewer --workers" in failure.reason
    assert len(done_by_key(outcomes)) == 11


@pytest.mark.parametrize(
    ("make_worker", "message"),
    [(refusing_factory, "no such model"), (dying_factory, r"-9.* before it was ready: use f")],
)
def test_a_worker_that_cannot_be_made_ends_the_run(make_worker: Callable[[], Worker], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        list(in_processes(make_worker, items(3), processes=2))


def test_files_that_cannot_be_written_end_the_run(tmp_path: Path) -> None:
    items = [Item("a", str(write_image(tmp_path / "a.png")))]
    with pytest.raises(SettingsError, match="missing cannot be written to"):
        list(model_per_process(make_plan(), tmp_path / "missing", quick_segmenter, items, processes=1))


@pytest.mark.parametrize(
    "engine",
    [
        lambda run_dir: partial(model_per_process, make_plan(), run_dir, quick_segmenter, processes=1),
        lambda run_dir: partial(shared_model, make_plan(), run_dir, quick_segmenter(), processes=1),
    ],
)
def test_images_become_files(engine: Callable[[Path], Callable[..., Iterator[Outcome]]], tmp_path: Path) -> None:
    names = [str(index) for index in range(12)]
    jobs = [Item(name, str(write_image(tmp_path / f"{name}.png"))) for name in names]
    run_dir = make_run_dir(tmp_path / "out")
    outcomes = list(engine(run_dir)([*jobs, Item("bad", "/nowhere")]))
    assert done_by_key(outcomes) == {**dict.fromkeys(names, True), "bad": False}
    assert {
        name for outcome in outcomes if isinstance(outcome, ItemResult) for name in staged_contents(run_dir, outcome)
    } == {f"{name}.png" for name in names}
