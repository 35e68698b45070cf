"""Stand-ins for the tests of bulk runs: a segmenter that is fast, and work that goes wrong in ways of its own."""

import os
import signal
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from tests.builders.scenes import png, quarter_labels, quarters
from walkcut.backbones.classical import ClassicalBackbone
from walkcut.bulk.checkpoint import ItemFailure, ItemResult, Outcome
from walkcut.bulk.formats import PngFormat
from walkcut.bulk.items import Format, Item
from walkcut.bulk.steps import Plan
from walkcut.errors import SettingsError
from walkcut.hierarchy.cut_tree import CutTree, build_tree
from walkcut.hierarchy.granularity import Granularity, Level
from walkcut.hierarchy.hierarchy import Hierarchy
from walkcut.inference.project import Project, ProjectOptions
from walkcut.labelstudio import BrushControl
from walkcut.segmentation.presets import PRESETS
from walkcut.segmentation.segmenter import Segmenter

CONTROL = BrushControl("brush", "image", "image", ("Region",), labels=("Region",))
LEVELS = {Level.COARSE: 2, Level.MEDIUM: 3, Level.FINE: 4}


@dataclass(frozen=True)
class QuickSegmenter(Segmenter):
    """Cuts every image into its quarters, in no time."""

    def segment(self, image: UInt8[np.ndarray, "y x 3"]) -> CutTree:
        height, width, _ = image.shape
        merges = Hierarchy(np.array([[0, 1], [2, 3], [4, 5]]), np.array([0.6, 0.5, 0.4]), np.ones(3, np.bool_))
        return build_tree(quarter_labels(height, width), merges, LEVELS)


def quick_segmenter() -> QuickSegmenter:
    return QuickSegmenter(ClassicalBackbone(), PRESETS["merge"])


def plan_for(
    form: Format | None = None, granularities: tuple[Granularity, ...] = (Level.AUTO,), trees: Path | None = None
) -> Plan:
    """A plan for the quick segmenter."""
    project = Project((CONTROL,), ProjectOptions(granularities[-1]))
    return Plan(project, granularities, form or PngFormat(), quick_segmenter().version, "merge", trees=trees)


def make_image(path: Path, height: int = 24, width: int = 32) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(quarters(height, width)))
    return path


def run_folder(out: Path) -> Path:
    """A folder with what processes need of a run."""
    (out / ".walkcut" / "parts").mkdir(parents=True, exist_ok=True)
    return out


def written(out: Path, done: ItemResult) -> dict[str, bytes]:
    """The files of an image that the ledger has not taken up."""
    return {name: (out / ".walkcut" / "parts" / part).read_bytes() for name, part in done.files.items()}


def done(key: str, record: dict[str, object] | None = None, files: dict[str, str] | None = None) -> ItemResult:
    return ItemResult(Item(key, f"/{key}.jpg"), files or {}, record or {"key": key}, "", 0, {"tree": 0.5})


class Echo:
    """Work that is done at once; what an item's reference says happens to the process first."""

    def prefetch(self, item: Item | ItemFailure) -> Item | ItemFailure:
        return item

    def run(self, item: Item | ItemFailure) -> Outcome:
        if isinstance(item, ItemFailure):
            return item
        if item.reference == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if item.reference.startswith("die once "):
            marker = Path(item.reference.removeprefix("die once "))
            if not marker.exists():
                marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return done(item.key)


def refuse() -> Echo:
    raise SettingsError("no such model: choose another")


def die() -> Echo:
    os.kill(os.getpid(), signal.SIGKILL)
    return Echo()
