"""Workers: the steps that one process does for each of its jobs."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from walkcut.bulk.items import CheckpointEntry, Item, ItemFailure, Outcome
from walkcut.bulk.plan import Plan
from walkcut.bulk.steps import (
    ExportStep,
    ImageSegmenter,
    LoadedImage,
    LoadStep,
    SegmentedImage,
    SegmentStep,
    isolate_failure,
    stage,
)
from walkcut.errors import ImageError
from walkcut.storage import read_tree


@runtime_checkable
class Worker(Protocol):
    """Work of a process: `prefetch` in threads, ahead of `run`. Both pass failures through."""

    def prefetch(self, job: Any, /) -> Any:
        """Do the part that waits for disks and networks."""
        ...

    def run(self, prefetched: Any, /) -> Any:
        """Do the rest."""
        ...


@dataclass(frozen=True)
class FullWorker:
    """All steps, with a model."""

    prefetch: LoadStep
    segment: SegmentStep
    export: ExportStep

    def run(self, image: LoadedImage | ItemFailure) -> Outcome:
        """Segment and export an image."""
        return self.export(self.segment(image))

    def __call__(self, item: Item | ItemFailure) -> Outcome:
        """Do all steps for an image."""
        return self.run(self.prefetch(item))


def make_full_worker(plan: Plan, output_dir: Path, make_segmenter: Callable[[], ImageSegmenter]) -> FullWorker:
    """Return a worker for all steps; its model is loaded now."""
    return FullWorker(LoadStep(plan), SegmentStep(make_segmenter()), ExportStep(plan, output_dir))


@dataclass(frozen=True)
class ExportWorker:
    """The last step alone, for processes beside the one with the model."""

    export: ExportStep

    def prefetch(self, image: SegmentedImage | ItemFailure) -> SegmentedImage | ItemFailure:
        """Return the image as it is."""
        return image

    def run(self, image: SegmentedImage | ItemFailure) -> Outcome:
        """Export an image."""
        return self.export(image)


def make_export_worker(plan: Plan, output_dir: Path) -> ExportWorker:
    """Return a worker for the last step."""
    return ExportWorker(ExportStep(plan, output_dir))


@dataclass(frozen=True)
class ReexportWorker:
    """Exports images again from the trees that an earlier run cached in `tree_dir`, without the model."""

    plan: Plan
    tree_dir: Path
    output_dir: Path

    def prefetch(self, entry: CheckpointEntry) -> SegmentedImage | ItemFailure:
        """Read the cached tree of an image."""
        return isolate_failure(entry.item, lambda item, seconds: self._read_tree(item, entry, seconds))

    def run(self, image: SegmentedImage | ItemFailure) -> Outcome:
        """Export an image."""
        return ExportStep(self.plan, self.output_dir)(image)

    def _read_tree(self, item: Item, entry: CheckpointEntry, seconds: dict[str, float]) -> SegmentedImage:
        with stage("read", seconds):
            tree = read_tree(self.tree_dir, entry.tree) if entry.tree else None
            if tree is None:
                raise ImageError(
                    "its cut tree is not in the cache: run `walkcut prelabel --trees` again, with WALKCUT_CACHE_BYTES "
                    "large enough for all trees"
                )
        return SegmentedImage(item, entry.tree, tree, seconds, cached=True)
