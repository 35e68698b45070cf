import json
import re
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from tests.builders.bulk import FAILURE, IMAGE_TAG, make_plan, make_result, quick_segmenter, resident_bytes, write_image
from tests.builders.processes import free_port
from tests.builders.scenes import png, quarters
from walkcut.bulk.checkpoint import open_checkpoint
from walkcut.bulk.formats import LabelStudioFormat, PngFormat
from walkcut.bulk.items import Item, ItemFailure, Outcome, Skipped
from walkcut.bulk.plan import Plan
from walkcut.bulk.progress import RunStats, serve_metrics
from walkcut.bulk.runner import run, run_settings, write_report
from walkcut.bulk.sinks import Sink
from walkcut.bulk.sources.scan import read_sources
from walkcut.bulk.workers import make_full_worker
from walkcut.errors import SettingsError
from walkcut.hierarchy.granularity import Segments
from walkcut.storage import TreeCache

MAX_BYTES_PER_IMAGE = 100  # bytes by which the process may grow


def in_this_process(plan: Plan, output_dir: Path) -> Callable[[Iterable[Item | ItemFailure]], Iterator[Outcome]]:
    """Return an engine that processes one image after another."""
    worker = make_full_worker(plan, output_dir, quick_segmenter)
    return lambda jobs: map(worker, jobs)


def run_and_report(
    jobs: Iterable[Item | ItemFailure | Skipped], output_dir: Path, plan: Plan | None = None
) -> dict[str, Any]:
    plan = plan or make_plan()
    stats = RunStats()
    with open_checkpoint(output_dir, run_settings(plan)) as checkpoint:
        sink = Sink(checkpoint, plan.output_format)
        run(jobs, in_this_process(plan, output_dir), checkpoint, sink, observers=[stats])
        return write_report(output_dir, checkpoint, stats)


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_run_is_reported_and_a_repeated_run_does_nothing(tmp_path: Path) -> None:
    for index in range(3):
        write_image(tmp_path / "in" / f"{index}.png")
    report = run_and_report(read_sources([str(tmp_path / "in")]), tmp_path / "out")
    assert (report["images"], report["failed"], report["images_in_total"]) == (3, 0, 3)
    assert set(report["seconds_per_stage"]) == {"read", "decode", "tree", "regions", "encode", "write"}
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == report
    assert [row["key"] for row in rows(tmp_path / "out" / "labels.jsonl")] == ["0", "1", "2"]
    again = run_and_report(read_sources([str(tmp_path / "in")]), tmp_path / "out")
    assert (again["images"], again["images_in_total"]) == (0, 3)


def test_new_trees_are_cached(tmp_path: Path) -> None:
    plan = make_plan(tree_dir=tmp_path / "trees")
    cache, stats = TreeCache(tmp_path / "trees", 1 << 20), RunStats()
    with open_checkpoint(tmp_path / "out", run_settings(plan)) as checkpoint:
        items = read_sources([str(write_image(tmp_path / "a.png"))])
        sink = Sink(checkpoint, plan.output_format)
        run(items, in_this_process(plan, tmp_path / "out"), checkpoint, sink, cache, [stats])
    (file,) = (tmp_path / "trees").iterdir()
    assert stats.tree_bytes == file.stat().st_size > 0
    assert cache.get(file.name.removesuffix(".tree.npz")) is not None


def test_new_trees_keep_to_the_quota(tmp_path: Path) -> None:
    plan, output_dir = make_plan(tree_dir=tmp_path / "trees"), tmp_path / "out"
    cache = TreeCache(tmp_path / "trees", 99)  # bytes, smaller than any tree
    with open_checkpoint(output_dir, run_settings(plan)) as checkpoint:
        items = read_sources([str(write_image(tmp_path / "a.png"))])
        run(items, in_this_process(plan, output_dir), checkpoint, Sink(checkpoint, plan.output_format), cache)
    assert list((tmp_path / "trees").iterdir()) == []


@pytest.mark.parametrize("change", [make_plan(granularities=(Segments(2),)), make_plan(LabelStudioFormat(IMAGE_TAG))])
def test_settings_that_change_results_change_the_fingerprint(change: Plan) -> None:
    assert run_settings(change) != run_settings(make_plan())
    assert run_settings(make_plan()) == json.loads(json.dumps(run_settings(make_plan())))


def test_metrics_are_served() -> None:
    port = free_port()
    outcomes: list[Outcome] = [make_result("a"), FAILURE]
    stats = RunStats()
    with serve_metrics("127.0.0.1", port) as count:
        for outcome in outcomes:
            count(outcome)
            stats(outcome)
        with urlopen(f"http://127.0.0.1:{port}/metrics") as response:
            text = response.read().decode()
        with pytest.raises(
            SettingsError, match=f"cannot be served on 127.0.0.1:{port} .*: choose another --metrics-port"
        ):
            serve_metrics("127.0.0.1", port).__enter__()
    assert 'walkcut_bulk_images_total{outcome="done"} 1.0' in text
    assert 'walkcut_bulk_stage_seconds_total{stage="tree"} 0.5' in text
    assert 'walkcut_bulk_failures_total{stage="decode"} 1.0' in text
    assert (stats.done, stats.failed) == (1, 1)


def broken_row(folder: Path, index: int) -> object:
    """Return a row of a manifest that is broken, in one of ten ways."""
    path = folder / f"broken-{index}.png"
    files = [b"", b"<html>not an image</html>", png(quarters(24, 32))[:60], png(quarters(4, 4))]
    rows = [{"photo": path.name}, index, f"http://127.0.0.1:9/{path.name}", f"data:image/png;base64,{index}#"]
    kind = index % 10
    if kind < len(files):
        path.write_bytes(files[kind])
    elif kind == 4:
        path.mkdir()
    return path.name if kind <= 5 else rows[kind - 6]  # of kind 5 there is no such file


@pytest.mark.parametrize("count", [500, pytest.param(10_000, marks=pytest.mark.soak)])
def test_broken_references_fail_and_the_rest_is_done(tmp_path: Path, count: int) -> None:
    valid = png(quarters(24, 32))
    bad = [33 * index for index in range(count * 3 // 100)]
    listed = [broken_row(tmp_path, index // 33) if index in bad else f"{index}.png" for index in range(count)]
    for index in set(range(count)) - set(bad):
        (tmp_path / f"{index}.png").write_bytes(valid)
    (tmp_path / "all.json").write_text(json.dumps(listed))
    report = run_and_report(read_sources([str(tmp_path / "all.json")]), tmp_path / "out")
    assert (report["images"], report["failed"]) == (count - len(bad), len(bad))
    failures = rows(tmp_path / "out" / "failed.jsonl")
    assert len({failure["key"] for failure in failures}) == len(bad)
    assert len({re.sub(r"[^a-z ]|broken.*png", "", failure["reason"]) for failure in failures}) >= 10
    assert not [failure for failure in failures if "bug in walkcut" in failure["reason"]]
    assert len(rows(tmp_path / "out" / "labels.jsonl")) == count - len(bad)


def growth(jobs: int, folder: Path) -> int:
    """Return the bytes by which this process grows in a run over generated images, after the first tenth."""
    plan = make_plan()
    worker = make_full_worker(plan, folder / "out", quick_segmenter)
    image = str(write_image(folder / "a.png"))
    sizes: list[int] = []

    def measured(items: Iterable[Item | ItemFailure]) -> Iterator[Outcome]:
        for index, item in enumerate(items):
            yield worker(item)
            if index in (jobs // 10, jobs - 1):
                sizes.append(resident_bytes())

    items = (Item(f"{index:06d}", image, {"index": index}) for index in range(jobs))
    with open_checkpoint(folder / "out", run_settings(plan)) as checkpoint:
        run(items, measured, checkpoint, Sink(checkpoint, PngFormat()))
    return sizes[1] - sizes[0]


@pytest.mark.parametrize("count", [2000, pytest.param(200_000, marks=pytest.mark.soak)])
def test_memory_and_time_of_a_large_folder_are_bounded(tmp_path: Path, count: int) -> None:
    """Half of the files have no ending, and a resumed run looks at all of them again."""
    content = png(quarters(16, 16))
    for index in range(count):
        (tmp_path / (f"{index:06d}.png" if index % 2 else f"{index:06d}")).write_bytes(content)
    before, begin = resident_bytes(), time.process_time()
    assert sum(isinstance(item, Item) for item in read_sources([str(tmp_path)])) == count
    assert resident_bytes() - before < (8 << 20) + 400 * count
    assert time.process_time() - begin < 5 + count / 2000


@pytest.mark.parametrize("jobs", [2000, pytest.param(100_000, marks=pytest.mark.soak)])
def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path, jobs: int) -> None:
    assert growth(jobs, tmp_path) < (4 << 20) + MAX_BYTES_PER_IMAGE * jobs
