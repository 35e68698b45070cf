import json
import re
import resource
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from tests.builders.bulk import CONTROL, done, make_image, plan_for, quick_segmenter
from tests.builders.processes import free_port
from tests.builders.scenes import png, quarters
from walkcut.bulk.checkpoint import ItemFailure, Outcome, open_checkpoint
from walkcut.bulk.formats import LabelStudioFormat, PngFormat
from walkcut.bulk.items import Item
from walkcut.bulk.progress import RunStats, metrics, notify
from walkcut.bulk.runner import fingerprint, run, write_report
from walkcut.bulk.sinks import FolderSink
from walkcut.bulk.sources.scan import read_sources
from walkcut.bulk.steps import Plan, make_full_worker
from walkcut.errors import SettingsError
from walkcut.hierarchy.granularity import Segments
from walkcut.storage import TreeCache

PER_IMAGE = 100  # bytes that a run may grow by for each image


def at_once(plan: Plan, out: Path) -> Callable[[Iterable[Item | ItemFailure]], Iterator[Outcome]]:
    """An engine that does one image after another, here."""
    labeller = make_full_worker(plan, out, quick_segmenter)
    return lambda jobs: map(labeller, jobs)


def run_and_report(jobs: Iterable[Item | ItemFailure], out: Path, plan: Plan | None = None) -> dict[str, Any]:
    plan = plan or plan_for()
    with open_checkpoint(out, fingerprint(plan)) as checkpoint:
        stats = run(jobs, at_once(plan, out), checkpoint, FolderSink(checkpoint, plan.form))
        return write_report(out, checkpoint, stats)


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_run_is_reported_and_done_again_does_nothing(tmp_path: Path) -> None:
    for number in range(3):
        make_image(tmp_path / "in" / f"{number}.png")
    report = run_and_report(read_sources([str(tmp_path / "in")]), tmp_path / "out")
    assert (report["images"], report["failed"], report["images_in_all"]) == (3, 0, 3)
    assert set(report["seconds_per_stage"]) == {"read", "decode", "tree", "regions", "encode", "write"}
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == report
    assert [row["key"] for row in rows(tmp_path / "out" / "labels.jsonl")] == ["0", "1", "2"]
    again = run_and_report(read_sources([str(tmp_path / "in")]), tmp_path / "out")
    assert (again["images"], again["images_in_all"]) == (0, 3)


def test_new_trees_are_kept(tmp_path: Path) -> None:
    plan = plan_for(trees=tmp_path / "trees")
    cache = TreeCache(tmp_path / "trees", 1 << 20)
    with open_checkpoint(tmp_path / "out", fingerprint(plan)) as checkpoint:
        items = read_sources([str(make_image(tmp_path / "a.png"))])
        stats = run(items, at_once(plan, tmp_path / "out"), checkpoint, FolderSink(checkpoint, plan.form), cache)
    (file,) = (tmp_path / "trees").iterdir()
    assert stats.tree_bytes == file.stat().st_size > 0
    assert cache.get(file.name.removesuffix(".tree.npz")) is not None


def test_new_trees_keep_to_the_quota(tmp_path: Path) -> None:
    plan, out = plan_for(trees=tmp_path / "trees"), tmp_path / "out"
    cache = TreeCache(tmp_path / "trees", 99)  # bytes, less than any
    with open_checkpoint(out, fingerprint(plan)) as checkpoint:
        items = read_sources([str(make_image(tmp_path / "a.png"))])
        run(items, at_once(plan, out), checkpoint, FolderSink(checkpoint, plan.form), cache)
    assert list((tmp_path / "trees").iterdir()) == []


@pytest.mark.parametrize("change", [plan_for(granularities=(Segments(2),)), plan_for(LabelStudioFormat(CONTROL))])
def test_what_changes_the_answer_changes_the_fingerprint(change: Plan) -> None:
    assert fingerprint(change) != fingerprint(plan_for())
    assert fingerprint(plan_for()) == json.loads(json.dumps(fingerprint(plan_for())))


def test_metrics_can_be_asked_for() -> None:
    port = free_port()
    outcomes: list[Outcome] = [done("a"), ItemFailure("b", "/b", "decode", "no")]
    stats = RunStats()
    with metrics("127.0.0.1", port) as watch:
        assert list(notify(outcomes, [watch, stats])) == outcomes
        with urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            text = answer.read().decode()
        with pytest.raises(SettingsError, match=f"cannot be had on 127.0.0.1:{port} .*: choose another --metrics-port"):
            metrics("127.0.0.1", port).__enter__()
    assert 'walkcut_bulk_images_total{outcome="done"} 1.0' in text
    assert 'walkcut_bulk_stage_seconds_total{stage="tree"} 0.5' in text
    assert 'walkcut_bulk_failures_total{stage="decode"} 1.0' in text
    assert (stats.done, stats.failed) == (1, 1)


def broken(folder: Path, number: int) -> object:
    """A row of a list that is broken, in one of ten ways."""
    path = folder / f"broken-{number}.png"
    files = [b"", b"<html>no image</html>", png(quarters(24, 32))[:60], png(quarters(4, 4))]
    others = [{"image": path.name}, number, f"http://127.0.0.1:9/{path.name}", f"data:image/png;base64,{number}#"]
    way = number % 10
    if way < len(files):
        path.write_bytes(files[way])
    elif way == 4:
        path.mkdir()
    return path.name if way <= 5 else others[way - 6]  # in the sixth way there is no such file


@pytest.mark.parametrize("count", [500, pytest.param(10_000, marks=pytest.mark.soak)])
def test_broken_references_are_named_and_the_rest_is_done(tmp_path: Path, count: int) -> None:
    whole = png(quarters(24, 32))
    bad = [number * 33 for number in range(count * 3 // 100)]
    listed = [broken(tmp_path, number // 33) if number in bad else f"{number}.png" for number in range(count)]
    for number in set(range(count)) - set(bad):
        (tmp_path / f"{number}.png").write_bytes(whole)
    (tmp_path / "all.json").write_text(json.dumps(listed))
    report = run_and_report(read_sources([str(tmp_path / "all.json")]), tmp_path / "out")
    assert (report["images"], report["failed"]) == (count - len(bad), len(bad))
    failures = rows(tmp_path / "out" / "failed.jsonl")
    assert len({failure["key"] for failure in failures}) == len(bad)
    assert len({re.sub(r"[^a-z ]|broken.*png", "", failure["reason"]) for failure in failures}) >= 10
    assert not [failure for failure in failures if "defect" in failure["reason"]]
    assert len(rows(tmp_path / "out" / "labels.jsonl")) == count - len(bad)


def grown(jobs: int, folder: Path) -> int:
    """Bytes that a run over generated images grows this process by, from a tenth of them on."""
    plan = plan_for()
    labeller = make_full_worker(plan, folder / "out", quick_segmenter)
    whole = str(make_image(folder / "a.png"))
    sizes: list[int] = []

    def measured(items: Iterable[Item | ItemFailure]) -> Iterator[Outcome]:
        for number, item in enumerate(items):
            yield labeller(item)
            if number in (jobs // 10, jobs - 1):
                sizes.append(memory())

    items = (Item(f"{number:06d}", whole, {"number": number}) for number in range(jobs))
    with open_checkpoint(folder / "out", fingerprint(plan)) as checkpoint:
        run(items, measured, checkpoint, FolderSink(checkpoint, PngFormat()))
    return sizes[1] - sizes[0]


def memory() -> int:
    """Bytes of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


@pytest.mark.parametrize("jobs", [2000, pytest.param(100_000, marks=pytest.mark.soak)])
def test_memory_does_not_grow_with_the_images(tmp_path: Path, jobs: int) -> None:
    assert grown(jobs, tmp_path) < (4 << 20) + PER_IMAGE * jobs
