"""Workers: the steps that one process does for each of its jobs."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from walkcut.bulk.plan import Plan
from walkcut.bulk.steps import ExportStep, ImageSegmenter, LoadStep, SegmentStep, read_segmented, serialize_tree


@runtime_checkable
class Worker(Protocol):
    """Work of a process: `prefetch` in threads, ahead of `run`. Both pass failures through."""

    def prefetch(self, job: Any, /) -> Any:
        """Do the part that waits for disks and networks."""

    def run(self, prefetched: Any, /) -> Any:
        """Do the rest."""


@dataclass(frozen=True)
class StepWorker:
    """A worker of two functions."""

    prefetch: Callable[[Any], Any]
    run: Callable[[Any], Any]

    def __call__(self, job: Any) -> Any:
        """Do both parts of a job."""
        return self.run(self.prefetch(job))


def make_full_worker(plan: Plan, output_dir: Path, make_segmenter: Callable[[], ImageSegmenter]) -> StepWorker:
    """Return a worker for all steps; its model is loaded now."""
    segment, export = SegmentStep(make_segmenter()), ExportStep(plan, output_dir)
    return StepWorker(LoadStep(plan), lambda image: export(segment(image)))


def make_load_worker(plan: Plan) -> StepWorker:
    """Return a worker for the first step, for processes beside those with a model."""
    return StepWorker(LoadStep(plan), _identity)


def make_segment_worker(make_segmenter: Callable[[], ImageSegmenter]) -> StepWorker:
    """Return a worker for the second step; its model is loaded now."""
    segment = SegmentStep(make_segmenter())
    return StepWorker(_identity, lambda image: serialize_tree(segment(image)))


def make_export_worker(plan: Plan, output_dir: Path) -> StepWorker:
    """Return a worker for the last step, for processes beside those with a model."""
    return StepWorker(_identity, ExportStep(plan, output_dir))


def make_reexport_worker(plan: Plan, tree_dir: Path, output_dir: Path) -> StepWorker:
    """Return a worker that exports images again, from the trees that an earlier run cached in `tree_dir`."""
    return StepWorker(partial(read_segmented, tree_dir), ExportStep(plan, output_dir))


def _identity(value: Any) -> Any:
    return value
