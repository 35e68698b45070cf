import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

from tests.builders.bulk import (
    IMAGE_TAG,
    done_by_key,
    done_lines,
    dying_factory,
    echo,
    echo_worker,
    make_plan,
    make_result,
    make_run_dir,
    output_files,
    quick_segmenter,
    refusing_factory,
    resident_bytes,
    write_image,
    write_images,
)
from tests.builders.bulk_commands import end_with, start_walkcut, wait_for_lines, walkcut
from walkcut.bulk.checkpoint import open_checkpoint
from walkcut.bulk.engines import local, ray_cluster, ray_engine
from walkcut.bulk.engines.ray_actors import Stage
from walkcut.bulk.engines.ray_engine import in_cluster, make_ray_engine
from walkcut.bulk.formats import LabelStudioFormat, PngFormat
from walkcut.bulk.items import Item, ItemFailure, Outcome
from walkcut.bulk.plan import Plan
from walkcut.bulk.runner import Engine, run, run_settings
from walkcut.bulk.sinks import Sink
from walkcut.bulk.sources.scan import read_sources
from walkcut.bulk.workers import Worker, make_full_worker
from walkcut.errors import SettingsError

OBJECT_STORE = 80 << 20
WINDOW = 25

# Ray Data's own defaults are deprecated.
pytestmark = pytest.mark.filterwarnings(r"ignore:`use_\w+` is deprecated:DeprecationWarning:ray\.data\.context")

Jobs = list[Item | ItemFailure]


@pytest.fixture(autouse=True, scope="module")
def two_machines() -> Iterator[Cluster]:
    """A cluster of two machines with a core each, the second one with a pretended GPU."""
    machine: dict[str, Any] = {"num_cpus": 1, "object_store_memory": OBJECT_STORE, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=machine)
    cluster.add_node(num_gpus=1, **machine)
    ray.init(address=cluster.address, log_to_driver=False)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def run_slowly(folder: Path, item: Item | ItemFailure) -> Outcome:
    (folder / f"{os.getpid()}").touch()
    time.sleep(0.05)
    return echo(item)


def slow_worker(folder: Path) -> Worker:
    """Return a worker that takes a moment, and writes a file named by its process."""
    return Worker(partial(run_slowly, folder))


def items(count: int) -> Jobs:
    return [Item(str(index), "here") for index in range(count)]


def all_done(count: int) -> dict[str, bool]:
    return {str(index): True for index in range(count)}


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return make_run_dir(tmp_path / "out")


def run_in_cluster(
    jobs: Iterable[Item | ItemFailure], run_dir: Path, make_worker: Callable[[], Worker] = echo_worker
) -> list[Outcome]:
    return list(in_cluster([Stage(make_worker)], run_dir, jobs))


def run_files(engine: Engine[Any], plan: Plan, images: Path, run_dir: Path) -> dict[str, bytes]:
    """Return the files of a run, without its state; each image is done once."""
    with open_checkpoint(run_dir, run_settings(plan)) as checkpoint:
        run(read_sources([str(images)]), engine, checkpoint, Sink(checkpoint, plan.output_format))
    assert max(Counter(json.loads(line)["key"] for line in done_lines(run_dir)).values()) == 1
    return output_files(run_dir)


@pytest.mark.parametrize(
    ("device_type", "output_format"), [("cpu", PngFormat()), ("cuda", LabelStudioFormat(IMAGE_TAG))]
)
def test_a_cluster_writes_what_one_machine_writes(
    tmp_path: Path, device_type: str, output_format: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with relative paths, although the workers have another working directory."""
    monkeypatch.chdir(tmp_path)
    for index in range(30):
        write_image(tmp_path / "in" / f"{index % 3}" / f"{index}.png", 24 + index)
    for index, content in enumerate((b"", b"<html>not an image</html>", b"\x89PNG\r\n\x1a\n half")):
        (tmp_path / "in" / f"broken-{index}.jpg").write_bytes(content)
    tree_dirs = [Path(name) for name in ("local_trees", "ray_trees")]
    for folder in tree_dirs:
        folder.mkdir()
    plans = [make_plan(output_format, tree_dir=folder) for folder in tree_dirs]
    local_engine = partial(local.model_per_process, plans[0], Path("a"), quick_segmenter, processes=1)
    local_files = run_files(local_engine, plans[0], tmp_path / "in", Path("a"))
    engine = make_ray_engine(plans[1], Path("b"), quick_segmenter, device_type)
    ray_files = run_files(engine, plans[1], tmp_path / "in", Path("b"))
    failures = [sorted(files.pop("failed.jsonl").splitlines()) for files in (local_files, ray_files)]
    assert local_files == ray_files
    assert failures[0] == failures[1]
    assert len(failures[0]) == 3
    contents = [{path.name: path.read_bytes() for path in folder.iterdir()} for folder in tree_dirs]
    assert contents[0] == contents[1]
    assert len(contents[0]) == 30


def test_a_process_that_is_killed_loses_nothing(tmp_path: Path, run_dir: Path) -> None:
    killed = 0
    outcomes = []
    for outcome in in_cluster([Stage(partial(slow_worker, tmp_path))], run_dir, items(60)):
        outcomes.append(outcome)
        if len(outcomes) == 9:
            killed = int(min(path.name for path in tmp_path.iterdir()))
            os.kill(killed, signal.SIGKILL)
    assert killed
    assert done_by_key(outcomes) == all_done(60)


def test_an_image_that_kills_its_processes_fails_alone(
    tmp_path: Path, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the first of two windows; another image kills one process."""
    monkeypatch.setattr(ray_engine, "_MIN_WINDOW", WINDOW)
    monkeypatch.setattr(ray_engine, "_WINDOW_PER_PROCESS", 1)
    jobs = [*items(30), ItemFailure("lost", "?", "source", "no reference")]
    jobs[10:10] = [Item("bad", "die")]
    jobs[20:20] = [Item("once", f"die once {tmp_path / 'marker'}")]
    taken = 0

    def counted() -> Iterator[Item | ItemFailure]:
        nonlocal taken
        for job in jobs:
            taken += 1
            yield job

    outcomes: list[Outcome] = []
    for outcome in in_cluster([Stage(echo_worker)], run_dir, counted()):
        outcomes.append(outcome)
        assert taken <= len(outcomes) + WINDOW
    (failure,) = (outcome for outcome in outcomes if isinstance(outcome, ItemFailure) and outcome.key != "lost")
    assert (failure.key, failure.reference, failure.stage) == ("bad", "die", "work")
    assert "each process that ran it died, 2 times" in failure.reason
    assert "more --cpus-per-worker, or scale large images down" in failure.reason
    assert done_by_key(outcomes) == {**all_done(30), "once": True, "bad": False, "lost": False}


@pytest.mark.parametrize(
    ("make_worker", "message"),
    [(refusing_factory, "^no such model"), (dying_factory, r"killed .* before it was ready: run fewer")],
)
def test_a_worker_that_cannot_be_made_ends_the_run(
    make_worker: Callable[[], Worker], message: str, run_dir: Path
) -> None:
    with pytest.raises(SettingsError, match=message):
        run_in_cluster(items(3), run_dir, make_worker)


@pytest.mark.slow
def test_a_killed_driver_continues_with_the_same_result(
    tmp_path: Path, two_machines: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL and SIGTERM, while images are processed."""
    monkeypatch.setenv("RAY_ADDRESS", two_machines.address)
    monkeypatch.setenv("WALKCUT_STATE_DIR", str(tmp_path / "state"))
    write_images(tmp_path / "in", 24, 160)
    arguments = ("prelabel", tmp_path / "in", "--format", "png", "--no-trees")
    run_dir = tmp_path / "out"
    for signal_number, status in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 130)):
        with start_walkcut(*arguments, "--engine", "ray", "--out", run_dir) as process:
            wait_for_lines(run_dir, len(done_lines(run_dir)) + 4)
            assert end_with(process, signal_number)[0] == status
    assert walkcut(*arguments, "--engine", "ray", "--out", run_dir).exit_code == 0
    assert sorted(json.loads(line)["key"] for line in done_lines(run_dir)) == sorted(str(index) for index in range(24))
    assert list((run_dir / ".walkcut").glob("parts*")) == []
    assert walkcut(*arguments, "--workers", 1, "--out", tmp_path / "whole").exit_code == 0
    assert output_files(run_dir) == output_files(tmp_path / "whole")


def run_broken(item: Item | ItemFailure) -> Outcome:
    raise TypeError("unexpected")


def broken_worker() -> Worker:
    """Return a worker that fails with an unexpected error."""
    return Worker(run_broken)


@pytest.mark.parametrize(
    ("make_worker", "message"),
    [
        (partial(make_full_worker, make_plan(), Path("/missing"), quick_segmenter), "^/missing cannot be written to"),
        (broken_worker, r"Ray failed \(TypeError: unexpected"),
    ],
)
def test_an_error_that_affects_all_images_ends_the_run(
    tmp_path: Path, run_dir: Path, make_worker: Callable[[], Worker], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        list(in_cluster([Stage(make_worker)], run_dir, [Item("a", str(write_image(tmp_path / "a.png")))]))


def test_each_image_has_one_outcome_whatever_ray_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        ray_engine, "_run", lambda pools, jobs: iter([make_result("1"), make_result("1"), make_result("other")])
    )
    bad = ItemFailure("bad", "?", "source", "no reference")
    first, second, third = ray_engine._dedupe([], [*items(2), bad])
    assert (first, second) == (bad, make_result("1"))
    assert isinstance(third, ItemFailure)
    assert (third.key, third.reason.partition(":")[0]) == ("0", "Ray returned no result for this image")


def test_a_finished_run_needs_no_cluster(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_cluster, "connected", None)
    assert run_in_cluster([], run_dir) == []


def test_machines_with_another_version_are_named(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_cluster, "_VERSION", "9.9")
    with pytest.raises(SettingsError, match=r"has walkcut [0-9.]+, this one 9.9: install the same version"):
        run_in_cluster(items(1), run_dir)


def test_a_cluster_without_room_is_named(run_dir: Path) -> None:
    with pytest.raises(SettingsError, match="no machine of the Ray cluster has 2 CPU for a process: choose fewer"):
        list(in_cluster([Stage(echo_worker, cpus=2)], run_dir, items(1)))


@pytest.mark.soak
def test_memory_of_the_driver_is_bounded(run_dir: Path) -> None:
    outcomes = in_cluster([Stage(echo_worker)], run_dir, items(40_000))
    sizes = [resident_bytes() for index, _ in enumerate(outcomes) if index % 10_000 == 0]
    assert sizes[-1] - sizes[1] < 50 << 20
