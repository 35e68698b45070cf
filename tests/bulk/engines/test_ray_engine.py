import json
import os
import resource
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

from tests.builders.bulk import CONTROL, Echo, die, done, make_image, plan_for, quick_segmenter, refuse, run_folder
from tests.cli.test_prelabel import contents, end, lines, make_images, start, wait_for_lines, walkcut
from walkcut.bulk.checkpoint import ItemFailure, ItemResult, Outcome, open_checkpoint
from walkcut.bulk.engines import local, ray_cluster, ray_engine
from walkcut.bulk.engines.local import Worker
from walkcut.bulk.engines.ray_actors import Stage
from walkcut.bulk.engines.ray_engine import in_cluster
from walkcut.bulk.formats import LabelStudioFormat, PngFormat
from walkcut.bulk.items import Item
from walkcut.bulk.runner import Engine, fingerprint, run
from walkcut.bulk.sinks import FolderSink
from walkcut.bulk.sources.scan import read_sources
from walkcut.bulk.steps import Plan, make_full_worker
from walkcut.errors import SettingsError

OBJECT_STORE = 80 << 20
WINDOW = 25

# Ray Data calls defaults of its own deprecated.
pytestmark = pytest.mark.filterwarnings(r"ignore:`use_\w+` is deprecated:DeprecationWarning:ray\.data\.context")

Jobs = list[Item | ItemFailure]


@pytest.fixture(autouse=True, scope="module")
def two_machines() -> Iterator[Cluster]:
    """A cluster of two machines with a core each, the second one with what passes for a GPU."""
    machine: dict[str, Any] = {"num_cpus": 1, "object_store_memory": OBJECT_STORE, "include_dashboard": False}
    found = Cluster(initialize_head=True, head_node_args=machine)
    found.add_node(num_gpus=1, **machine)
    ray.init(address=found.address, log_to_driver=False)
    yield found
    ray.shutdown()
    found.shutdown()


class Slow(Echo):
    """Work that takes a moment, and notes which process does it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def run(self, item: Item | ItemFailure) -> Outcome:
        (self._folder / f"{os.getpid()}").touch()
        time.sleep(0.05)
        return super().run(item)


def items(count: int) -> Jobs:
    return [Item(str(number), "here") for number in range(count)]


def keys(outcomes: Iterable[Outcome]) -> dict[str, bool]:
    """Which images are done, by key; none twice."""
    found = [(each.item.key, True) if isinstance(each, ItemResult) else (each.key, False) for each in outcomes]
    assert len(found) == len(dict(found))
    return dict(found)


def all_done(count: int) -> dict[str, bool]:
    return {str(number): True for number in range(count)}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return run_folder(tmp_path / "out")


def echoed(jobs: Iterable[Item | ItemFailure], out: Path, make: Callable[[], Echo] = Echo) -> list[Outcome]:
    return list(in_cluster([Stage(make)], out, jobs))


def files_of_run(engine: Engine[Any], plan: Plan, folder: Path, out: Path) -> dict[str, bytes]:
    """What a run writes, without what it notes for itself."""
    with open_checkpoint(out, fingerprint(plan)) as checkpoint:
        run(read_sources([str(folder)]), engine, checkpoint, FolderSink(checkpoint, plan.form))
    lines = (out / ".walkcut" / "done.jsonl").read_text().splitlines()
    assert max(Counter(json.loads(line)["key"] for line in lines).values()) == 1
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in out.rglob("*")
        if path.is_file() and ".walkcut" not in path.parts
    }


@pytest.mark.parametrize(
    ("engine", "form"),
    [(ray_engine.model_per_process, PngFormat()), (ray_engine.model_per_gpu, LabelStudioFormat(CONTROL))],
)
def test_a_cluster_writes_what_one_machine_writes(
    tmp_path: Path, engine: Any, form: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also below a folder in which the other processes are not."""
    monkeypatch.chdir(tmp_path)
    for number in range(30):
        make_image(tmp_path / "in" / f"{number % 3}" / f"{number}.png", 24 + number)
    for number, content in enumerate((b"", b"<html>no image</html>", b"\x89PNG\r\n\x1a\n half")):
        (tmp_path / "in" / f"broken-{number}.jpg").write_bytes(content)
    trees = [Path(name) for name in ("here", "there")]
    for folder in trees:
        folder.mkdir()
    plans = [plan_for(form, trees=folder) for folder in trees]
    load = quick_segmenter
    local_engine = partial(local.model_per_process, plans[0], Path("a"), load, processes=1)
    here = files_of_run(local_engine, plans[0], tmp_path / "in", Path("a"))
    there = files_of_run(partial(engine, plans[1], Path("b"), load), plans[1], tmp_path / "in", Path("b"))
    failures = [sorted(files.pop("failed.jsonl").splitlines()) for files in (here, there)]
    assert here == there
    assert failures[0] == failures[1]
    assert len(failures[0]) == 3
    contents = [{path.name: path.read_bytes() for path in folder.iterdir()} for folder in trees]
    assert contents[0] == contents[1]
    assert len(contents[0]) == 30


def test_a_process_that_is_killed_loses_nothing(tmp_path: Path, out: Path) -> None:
    killed = 0
    outcomes = []
    for outcome in in_cluster([Stage(partial(Slow, tmp_path))], out, items(60)):
        outcomes.append(outcome)
        if len(outcomes) == 9:
            killed = int(min(path.name for path in tmp_path.iterdir()))
            os.kill(killed, signal.SIGKILL)
    assert killed
    assert keys(outcomes) == all_done(60)


def test_a_image_that_kills_each_process_fails_alone(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the first of two windows; another image kills one process."""
    monkeypatch.setattr(ray_engine, "_WINDOW", WINDOW)
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
    for outcome in in_cluster([Stage(Echo)], out, counted()):
        outcomes.append(outcome)
        assert taken <= len(outcomes) + WINDOW
    (failure,) = (each for each in outcomes if isinstance(each, ItemFailure) and each.key != "lost")
    assert (failure.key, failure.reference, failure.stage) == ("bad", "die", "work")
    assert "each process at work on it ended, 2 times" in failure.reason
    assert "more --cpus-per-worker, or scale large images down" in failure.reason
    assert keys(outcomes) == {**all_done(30), "once": True, "bad": False, "lost": False}


@pytest.mark.parametrize(
    ("make", "message"), [(refuse, "^no such model"), (die, r"killed .* before it could begin: h")]
)
def test_work_that_cannot_begin_ends_the_run(make: Callable[[], Echo], message: str, out: Path) -> None:
    with pytest.raises(SettingsError, match=message):
        echoed(items(3), out, make)


@pytest.mark.slow
def test_a_driver_that_is_killed_goes_on_and_comes_to_the_same(
    tmp_path: Path, two_machines: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill -9 and a SIGTERM, while images are in work."""
    monkeypatch.setenv("RAY_ADDRESS", two_machines.address)
    monkeypatch.setenv("WALKCUT_STATE_DIR", str(tmp_path / "state"))
    make_images(tmp_path / "in", 24, 160)
    arguments = ("prelabel", tmp_path / "in", "--format", "png", "--no-trees")
    out = tmp_path / "out"
    for number, status in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 130)):
        with start(*arguments, "--engine", "ray", "--out", out) as process:
            wait_for_lines(out, len(lines(out)) + 4)
            assert end(process, number)[0] == status
    assert walkcut(*arguments, "--engine", "ray", "--out", out).exit_code == 0
    assert sorted(json.loads(line)["key"] for line in lines(out)) == sorted(str(number) for number in range(24))
    assert list((out / ".walkcut").glob("parts*")) == []
    assert walkcut(*arguments, "--workers", 1, "--out", tmp_path / "whole").exit_code == 0
    assert contents(out) == contents(tmp_path / "whole")


class Defective(Echo):
    """Work that goes wrong in a way that nobody foresaw."""

    def run(self, item: Item | ItemFailure) -> Outcome:
        raise TypeError("nobody foresaw this")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (partial(make_full_worker, plan_for(), Path("/gone"), quick_segmenter), "^/gone cannot be written to"),
        (Defective, r"Ray gave up \(TypeError: nobody foresaw this"),
    ],
)
def test_what_goes_wrong_with_more_than_a_image_ends_the_run(
    tmp_path: Path, out: Path, make: Callable[[], Worker], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        list(in_cluster([Stage(make)], out, [Item("a", str(make_image(tmp_path / "a.png")))]))


def test_each_image_has_one_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever Ray does."""
    monkeypatch.setattr(ray_engine, "_through", lambda pools, jobs: iter([done("1"), done("1"), done("other")]))
    bad = ItemFailure("bad", "?", "source", "no reference")
    first, second, third = ray_engine._dedupe([], [*items(2), bad])
    assert (first, second) == (bad, done("1"))
    assert isinstance(third, ItemFailure)
    assert (third.key, third.reason.partition(":")[0]) == ("0", "Ray lost it on the way")


def test_a_run_that_is_done_needs_no_cluster(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_engine, "connected", None)
    assert echoed([], out) == []


def test_machines_with_another_walkcut_are_named(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_cluster, "_VERSION", "9.9")
    with pytest.raises(SettingsError, match=r"has walkcut [0-9.]+, this one 9.9: install the same"):
        echoed(items(1), out)


def test_a_cluster_without_room_is_named(out: Path) -> None:
    with pytest.raises(SettingsError, match="no machine of the Ray cluster has 2 CPU for a process: choose fewer"):
        list(in_cluster([Stage(Echo, cpus=2)], out, items(1)))


def memory() -> int:
    """Bytes of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


@pytest.mark.soak
def test_memory_of_the_driver_is_bounded(out: Path) -> None:
    sizes = [memory() for number, _ in enumerate(in_cluster([Stage(Echo)], out, items(40_000))) if number % 10_000 == 0]
    assert sizes[-1] - sizes[1] < 50 << 20
