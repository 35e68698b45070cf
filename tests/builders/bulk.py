"""A fast segmenter, plans, results and faulty workers for tests of bulk runs."""

import os
import resource
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from tests.builders.label_config import make_image_tag
from tests.builders.scenes import png, quarter_labels, quarters
from walkcut.backbones.classical import ClassicalBackbone
from walkcut.bulk.formats import Format, PngFormat
from walkcut.bulk.items import Item, ItemFailure, ItemResult, Outcome
from walkcut.bulk.plan import Plan
from walkcut.bulk.workers import Worker
from walkcut.errors import SettingsError
from walkcut.hierarchy.cut_tree import CutTree, build_tree
from walkcut.hierarchy.granularity import Granularity, Level
from walkcut.hierarchy.hierarchy import Hierarchy
from walkcut.inference.project import Project, ProjectOptions
from walkcut.segmentation.presets import PRESETS
from walkcut.segmentation.segmenter import Segmenter

IMAGE_TAG = make_image_tag("$image", ("Region",), labels=("Region",))
LEVELS = {Level.COARSE: 2, Level.MEDIUM: 3, Level.FINE: 4}
FAILURE = ItemFailure("bad", "/bad.jpg", "decode", "not an image")


@dataclass(frozen=True)
class QuickSegmenter(Segmenter):
    """Segments every image into its quarters."""

    def segment(self, image: UInt8[np.ndarray, "y x 3"]) -> CutTree:
        height, width, _ = image.shape
        merges = Hierarchy(np.array([[0, 1], [2, 3], [4, 5]]), np.array([0.6, 0.5, 0.4]), np.ones(3, np.bool_))
        return build_tree(quarter_labels(height, width), merges, LEVELS)


def quick_segmenter() -> QuickSegmenter:
    return QuickSegmenter(ClassicalBackbone(), PRESETS["merge"])


def make_plan(
    output_format: Format | None = None,
    granularities: tuple[Granularity, ...] = (Level.AUTO,),
    tree_dir: Path | None = None,
) -> Plan:
    """Return a plan for the quick segmenter."""
    project = Project((IMAGE_TAG,), ProjectOptions(granularities[-1]))
    return Plan(
        project, granularities, output_format or PngFormat(), quick_segmenter().version, "merge", tree_dir=tree_dir
    )


def write_image(path: Path, height: int = 24, width: int = 32) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(quarters(height, width)))
    return path


def write_images(folder: Path, count: int, side: int = 32) -> Path:
    """Write images of different heights, named by their index."""
    for index in range(count):
        write_image(folder / f"{index}.png", side + index, side)
    return folder


def make_run_dir(path: Path) -> Path:
    """Make the folders that workers write into."""
    (path / ".walkcut" / "parts").mkdir(parents=True, exist_ok=True)
    return path


def staged_contents(run_dir: Path, result: ItemResult) -> dict[str, bytes]:
    """Return the files of an image that the checkpoint has not moved yet."""
    return {name: (run_dir / ".walkcut" / "parts" / staged).read_bytes() for name, staged in result.files.items()}


def output_files(run_dir: Path) -> dict[str, bytes]:
    """Return a run's output by name, without its state and the times in its report."""
    return {
        path.relative_to(run_dir).as_posix(): path.read_bytes()
        for path in run_dir.rglob("*")
        if path.is_file() and ".walkcut" not in path.parts and path.name != "report.json"
    }


def done_lines(run_dir: Path) -> list[bytes]:
    """Return the lines of the finished images."""
    path = run_dir / ".walkcut" / "done.jsonl"
    return path.read_bytes().splitlines() if path.exists() else []


def make_result(key: str, record: dict[str, object] | None = None, files: dict[str, str] | None = None) -> ItemResult:
    return ItemResult(Item(key, f"/{key}.jpg"), files or {}, record or {"key": key}, "", 0, {"tree": 0.5})


def done_by_key(outcomes: Iterable[Outcome]) -> dict[str, bool]:
    """Return whether each image is done or has failed; no key may occur twice."""
    pairs = [
        (outcome.item.key, True) if isinstance(outcome, ItemResult) else (outcome.key, False) for outcome in outcomes
    ]
    assert len(pairs) == len(dict(pairs))
    return dict(pairs)


def resident_bytes() -> int:
    """Return the resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def echo(item: Item | ItemFailure) -> Outcome:
    """Finish an image at once; the reference of an item may kill the process first."""
    if isinstance(item, ItemFailure):
        return item
    if item.reference == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if item.reference.startswith("die once "):
        marker = Path(item.reference.removeprefix("die once "))
        if not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    return make_result(item.key)


def echo_worker() -> Worker:
    return Worker(echo)


def refusing_factory() -> Worker:
    raise SettingsError("no such model: choose another")


def dying_factory() -> Worker:
    os.kill(os.getpid(), signal.SIGKILL)
    return echo_worker()
