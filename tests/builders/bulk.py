"""Stand-ins for the tests of bulk runs: a segmenter that is fast, and work that goes wrong in ways of its own."""

import os
import signal
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from tests.builders.scenes import png, quarter_labels, quarters
from walkcut.backbones.classical import EmbeddedExtractor
from walkcut.bulk.checkpoint import Done, Failure, Outcome
from walkcut.bulk.formats import PngFormat
from walkcut.bulk.items import Format, Item
from walkcut.bulk.steps import Plan
from walkcut.errors import SettingsError
from walkcut.hierarchy.cut_tree import CutTree, grow_tree
from walkcut.hierarchy.granularity import Granularity, Level
from walkcut.hierarchy.hierarchy import Hierarchy
from walkcut.inference.predictor import Options, Project
from walkcut.labelstudio import BrushTarget
from walkcut.segmentation.presets import RECIPES
from walkcut.segmentation.segmenter import Segmenter

TARGET = BrushTarget("brush", "image", "image", ("Region",), labels=("Region",))
LEVELS = {Level.COARSE: 2, Level.MEDIUM: 3, Level.FINE: 4}


@dataclass(frozen=True)
class QuickSegmenter(Segmenter):
    """Cuts every picture into its quarters, in no time."""

    def tree(self, image: UInt8[np.ndarray, "y x 3"]) -> CutTree:
        height, width, _ = image.shape
        joints = Hierarchy(np.array([[0, 1], [2, 3], [4, 5]]), np.array([0.6, 0.5, 0.4]), np.ones(3, np.bool_))
        return grow_tree(quarter_labels(height, width), joints, LEVELS)


def quick_segmenter() -> QuickSegmenter:
    return QuickSegmenter(EmbeddedExtractor(), RECIPES["merge"])


def plan_for(
    form: Format | None = None, granularities: tuple[Granularity, ...] = (Level.AUTO,), trees: Path | None = None
) -> Plan:
    """A plan for the quick segmenter."""
    project = Project((TARGET,), Options(granularities[-1]))
    return Plan(project, granularities, form or PngFormat(), quick_segmenter().version, "merge", trees=trees)


def picture(path: Path, height: int = 24, width: int = 32) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(quarters(height, width)))
    return path


def run_folder(out: Path) -> Path:
    """A folder with what processes need of a run."""
    (out / ".walkcut" / "parts").mkdir(parents=True, exist_ok=True)
    return out


def written(out: Path, done: Done) -> dict[str, bytes]:
    """The files of a picture that the ledger has not taken up."""
    return {name: (out / ".walkcut" / "parts" / part).read_bytes() for name, part in done.files.items()}


def done(key: str, record: dict[str, object] | None = None, files: dict[str, str] | None = None) -> Done:
    return Done(Item(key, f"/{key}.jpg"), files or {}, record or {"key": key}, "", 0, {"tree": 0.5})


class Echo:
    """Work that is done at once; what an item's reference says happens to the process first."""

    def prepare(self, item: Item | Failure) -> Item | Failure:
        return item

    def complete(self, item: Item | Failure) -> Outcome:
        if isinstance(item, Failure):
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
