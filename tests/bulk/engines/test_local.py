import multiprocessing
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.builders.bulk import Echo, die, make_image, plan_for, quick_segmenter, refuse, run_folder, written
from walkcut.bulk.checkpoint import ItemFailure, ItemResult, Outcome
from walkcut.bulk.engines.local import in_processes, model_per_process, shared_model
from walkcut.bulk.items import Item
from walkcut.errors import SettingsError

MOST = 2 * 3  # jobs under way in two processes


@pytest.fixture(autouse=True, scope="module")
def preloaded() -> None:
    """Processes that need not import what the tests have imported."""
    multiprocessing.set_forkserver_preload(["tests.builders.bulk", "walkcut.bulk.engines.local"])


def items(count: int) -> list[Item]:
    return [Item(str(number), "here") for number in range(count)]


def keys(outcomes: Iterator[Outcome]) -> dict[str, bool]:
    """Which images are done, by key; none twice."""
    found = [(each.item.key, True) if isinstance(each, ItemResult) else (each.key, False) for each in outcomes]
    assert len(found) == len(dict(found))
    return dict(found)


def test_every_job_is_done_once_and_failures_pass() -> None:
    jobs: list[Item | ItemFailure] = [*items(30), ItemFailure("bad", "?", "source", "no reference")]
    assert keys(in_processes(Echo, jobs, processes=2)) == {**{str(n): True for n in range(30)}, "bad": False}


def test_no_more_jobs_are_taken_than_are_under_way() -> None:
    taken = 0

    def counted() -> Iterator[Item]:
        nonlocal taken
        for item in items(100):
            taken += 1
            yield item

    outcomes = in_processes(Echo, counted(), processes=2)
    for number, _ in enumerate(outcomes):
        assert taken <= number + MOST
    assert taken == 100


def test_a_process_that_dies_is_replaced_and_its_job_tried_again(tmp_path: Path) -> None:
    jobs = items(10)
    jobs[3:3] = [Item("once", f"die once {tmp_path / 'marker'}")]
    assert keys(in_processes(Echo, jobs, processes=2)) == {**{str(n): True for n in range(10)}, "once": True}


def test_a_job_whose_process_dies_twice_fails() -> None:
    jobs = [*items(5), Item("bad", "die"), *items(10)[5:]]
    outcomes = list(in_processes(Echo, jobs, processes=2))
    (failure,) = (each for each in outcomes if isinstance(each, ItemFailure))
    assert (failure.key, failure.reference, failure.stage) == ("bad", "die", "work")
    assert "a process ended (exit code -9" in failure.reason
    assert "2 times: use fewer --workers" in failure.reason
    assert len(keys(iter(outcomes))) == 11


@pytest.mark.parametrize(("make", "message"), [(refuse, "no such model"), (die, r"-9.* before it could begin: use f")])
def test_work_that_cannot_begin_ends_the_run(make: Callable[[], Echo], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        list(in_processes(make, items(3), processes=2))


def test_files_that_cannot_be_written_end_the_run(tmp_path: Path) -> None:
    items = [Item("a", str(make_image(tmp_path / "a.png")))]
    with pytest.raises(SettingsError, match="gone cannot be written to"):
        list(model_per_process(plan_for(), tmp_path / "gone", quick_segmenter, items, processes=1))


@pytest.mark.parametrize(
    "engine",
    [
        lambda out: partial(model_per_process, plan_for(), out, quick_segmenter, processes=1),
        lambda out: partial(shared_model, plan_for(), out, quick_segmenter(), processes=1),
    ],
)
def test_images_become_files(engine: Callable[[Path], Callable[..., Iterator[Outcome]]], tmp_path: Path) -> None:
    names = [str(number) for number in range(12)]
    jobs = [Item(name, str(make_image(tmp_path / f"{name}.png"))) for name in names]
    out = run_folder(tmp_path / "out")
    outcomes = list(engine(out)([*jobs, Item("bad", "/nowhere")]))
    assert keys(iter(outcomes)) == {**dict.fromkeys(names, True), "bad": False}
    assert {name for each in outcomes if isinstance(each, ItemResult) for name in written(out, each)} == {
        f"{name}.png" for name in names
    }
