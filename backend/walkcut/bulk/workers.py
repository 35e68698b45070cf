"""Workers: the steps from an image to its output files (load, segment, export), as one process does them.

An image fails without ending the run.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial, wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from walkcut.bulk.checkpoint import stage_files
from walkcut.bulk.items import CheckpointEntry, Item, ItemFailure, ItemResult, failure_of
from walkcut.bulk.plan import Plan
from walkcut.bulk.sources.uris import read_image
from walkcut.errors import BUG, ImageError, TreeFileError, WalkcutError
from walkcut.hierarchy.cut_tree import CutTree
from walkcut.images import ImageLoader, decode
from walkcut.storage import image_digest, read_tree, tree_key, write_tree
from walkcut.telemetry.spans import timed

log = logging.getLogger(__name__)

THREADS = 4  # that read images for one process with a model

Value = TypeVar("Value")
Result = TypeVar("Result")
Parameters = ParamSpec("Parameters")


@runtime_checkable
class ImageSegmenter(Protocol):
    """Makes the cut trees of images, as `walkcut.segmentation.segmenter.Segmenter` does."""

    def segment(self, image: UInt8[np.ndarray, "y x 3"], /) -> CutTree:
        """Return the cut tree of an RGB image."""


@dataclass(frozen=True)
class LoadedImage:
    """A decoded image, and the key of its tree."""

    item: Item
    key: str
    pixels: UInt8[np.ndarray, "y x 3"]
    seconds: Mapping[str, float]


@dataclass(frozen=True)
class SegmentedImage:
    """An image with its tree, or with the tree's file for another process; `cached` if the tree was in the cache."""

    item: Item
    key: str
    tree: CutTree | bytes
    seconds: Mapping[str, float]
    cached: bool = False


@dataclass(frozen=True)
class Worker:
    """Work of a process: `prefetch` in threads, ahead of `run`. Both pass failures through."""

    run: Callable[[Any], Any] = lambda job: job
    prefetch: Callable[[Any], Any] = lambda job: job

    def __call__(self, job: Any) -> Any:
        """Do both parts of a job."""
        return self.run(self.prefetch(job))


def make_full_worker(plan: Plan, output_dir: Path, make_segmenter: Callable[[], ImageSegmenter]) -> Worker:
    """Return a worker for all steps; its model is loaded now."""
    segmenter = make_segmenter()
    return Worker(lambda image: _export(segment(image, segmenter), plan, output_dir), make_load_worker(plan))


def make_load_worker(plan: Plan) -> Worker:
    """Return a worker for the first step, for processes beside those with a model."""
    return Worker(prefetch=partial(_load, plan=plan, loader=ImageLoader(plan.policy, plan.access)))


def make_segment_worker(make_segmenter: Callable[[], ImageSegmenter]) -> Worker:
    """Return a worker for the second step; its model is loaded now."""
    segmenter = make_segmenter()
    return Worker(lambda image: serialize_tree(segment(image, segmenter)))


def make_export_worker(plan: Plan, output_dir: Path) -> Worker:
    """Return a worker for the last step, for processes beside those with a model."""
    return Worker(partial(_export, plan=plan, output_dir=output_dir))


def make_reexport_worker(plan: Plan, tree_dir: Path, output_dir: Path) -> Worker:
    """Return a worker that exports images again, from the trees that an earlier run cached in `tree_dir`."""
    return replace(make_export_worker(plan, output_dir), prefetch=partial(_read_segmented, tree_dir=tree_dir))


def prefetched(step: Callable[[Value], Result], values: Iterable[Value]) -> Iterator[Result]:
    """Yield the step's results in order, while threads work on the next few values."""
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(THREADS) as pool:
        for value in values:
            pending.append(pool.submit(step, value))
            if len(pending) > THREADS:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


class _StageError(Exception):
    """A stage that failed, and a reason that a user can read."""


@contextmanager
def _stage(name: str, seconds: dict[str, float]) -> Iterator[None]:
    """Measure a stage, and name it in errors."""
    try:
        with timed(name, seconds.__setitem__):
            yield
    except (WalkcutError, OSError) as error:
        raise _StageError(name, str(error)) from error
    except Exception as error:
        log.exception(BUG)
        raise _StageError(name, f"{BUG} ({type(error).__name__}: {error})") from error


def _isolate_failure(
    step: Callable[Concatenate[Value, Parameters], Result],
) -> Callable[Concatenate[Value | ItemFailure, Parameters], Result | ItemFailure]:
    """Return a step that returns the image's failure: an earlier one, or that of one of its stages."""

    @wraps(step)
    def isolated(
        job: Value | ItemFailure, /, *args: Parameters.args, **kwargs: Parameters.kwargs
    ) -> Result | ItemFailure:
        if isinstance(job, ItemFailure):
            return job
        try:
            return step(job, *args, **kwargs)
        except _StageError as error:
            return failure_of(job, *error.args)

    return isolated


@_isolate_failure
def _load(item: Item, plan: Plan, loader: ImageLoader) -> LoadedImage | SegmentedImage:
    """Read an image, and decode it unless its tree is cached."""
    seconds: dict[str, float] = {}
    with _stage("read", seconds):
        data = read_image(item, loader, plan.policy)
        key = tree_key(image_digest(data), plan.segmenter_version)
        try:
            tree = None if plan.tree_dir is None else read_tree(plan.tree_dir, key)
        except TreeFileError as error:
            log.warning("cut tree %s is damaged, so its image is segmented again: %s", key, error)
            tree = None
    if tree is not None:
        return SegmentedImage(item, key, tree, seconds, cached=True)
    with _stage("decode", seconds):
        return LoadedImage(item, key, decode(data, plan.limits), seconds)


@_isolate_failure
def segment(image: LoadedImage | SegmentedImage, segmenter: ImageSegmenter) -> SegmentedImage:
    """Segment an image, unless its tree is cached."""
    if isinstance(image, SegmentedImage):
        return image
    seconds = dict(image.seconds)
    with _stage("tree", seconds):
        tree = segmenter.segment(image.pixels)
    return SegmentedImage(image.item, image.key, tree, seconds)


def serialize_tree(image: SegmentedImage | ItemFailure) -> SegmentedImage | ItemFailure:
    """Replace an image's tree by the bytes of its file."""
    if isinstance(image, ItemFailure) or isinstance(image.tree, bytes):
        return image
    return replace(image, tree=image.tree.to_bytes())


@_isolate_failure
def _read_segmented(entry: CheckpointEntry, tree_dir: Path) -> SegmentedImage:
    """Return a finished image with its tree from a cache."""
    seconds: dict[str, float] = {}
    with _stage("read", seconds):
        tree = read_tree(tree_dir, entry.tree_key) if entry.tree_key else None
        if tree is None:
            raise ImageError(
                "its cut tree is not in the cache: run `walkcut prelabel --trees` again, with WALKCUT_CACHE_BYTES "
                "large enough for all trees"
            )
    return SegmentedImage(entry.item, entry.tree_key, tree, seconds, cached=True)


@_isolate_failure
def _export(image: SegmentedImage, plan: Plan, output_dir: Path) -> ItemResult:
    """Predict, encode and stage an image's regions. Raises `SettingsError` for files that cannot be written."""
    seconds = dict(image.seconds)
    with _stage("regions", seconds):
        tree = CutTree.from_bytes(image.tree) if isinstance(image.tree, bytes) else image.tree
        prediction = plan.predict(image.item, tree)
    with _stage("encode", seconds):
        output = plan.output_format.encode(prediction)
    with timed("write", seconds.__setitem__):
        files = stage_files(output_dir, output.files)
        tree_bytes = 0 if image.cached else _cache_tree(image, plan.tree_dir)
    return ItemResult(image.item, files, output.record, image.key if plan.tree_dir else "", tree_bytes, seconds)


def _cache_tree(image: SegmentedImage, tree_dir: Path | None) -> int:
    """Write a new tree into the cache; return the size of its file, 0 if none was written."""
    if tree_dir is None:
        return 0
    try:
        return write_tree(tree_dir, image.key, image.tree if isinstance(image.tree, bytes) else image.tree.to_bytes())
    except OSError as error:
        log.warning("cut tree %s was not cached: %s", image.key, error)
        return 0
