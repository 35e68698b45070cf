"""Steps from an image to its output files: load, segment, export. An image fails without ending the run."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from walkcut.bulk.items import CheckpointEntry, Item, ItemFailure, ItemResult, Outcome
from walkcut.bulk.plan import Plan
from walkcut.bulk.run_folder import stage_files
from walkcut.bulk.sources.uris import read_image
from walkcut.errors import BUG, ImageError, TreeFileError, WalkcutError
from walkcut.hierarchy.cut_tree import CutTree
from walkcut.images import ImageLoader, decode
from walkcut.storage import image_digest, read_tree, tree_key, write_tree
from walkcut.telemetry.spans import timed

log = logging.getLogger(__name__)

Result = TypeVar("Result")


@runtime_checkable
class ImageSegmenter(Protocol):
    """Makes the cut trees of images, as `walkcut.segmentation.segmenter.Segmenter` does."""

    def segment(self, image: UInt8[np.ndarray, "y x 3"], /) -> CutTree:
        """Return the cut tree of an RGB image."""


@dataclass(frozen=True)
class LoadedImage:
    """An image that was read: the key of its tree, and its pixels or its cached tree."""

    item: Item
    key: str
    content: UInt8[np.ndarray, "y x 3"] | CutTree
    seconds: Mapping[str, float]


@dataclass(frozen=True)
class SegmentedImage:
    """An image with its tree, or with the tree's file for another process; `cached` if the tree was in the cache."""

    item: Item
    key: str
    tree: CutTree | bytes
    seconds: Mapping[str, float]
    cached: bool = False


def serialize_tree(image: SegmentedImage | ItemFailure) -> SegmentedImage | ItemFailure:
    """Replace an image's tree by the bytes of its file."""
    if isinstance(image, ItemFailure) or isinstance(image.tree, bytes):
        return image
    return replace(image, tree=image.tree.to_bytes())


def read_segmented(tree_dir: Path, entry: CheckpointEntry) -> SegmentedImage | ItemFailure:
    """Return a finished image with its tree from a cache."""

    def read(entry: CheckpointEntry, seconds: dict[str, float]) -> SegmentedImage:
        with _stage("read", seconds):
            tree = read_tree(tree_dir, entry.tree_key) if entry.tree_key else None
            if tree is None:
                raise ImageError(
                    "its cut tree is not in the cache: run `walkcut prelabel --trees` again, with WALKCUT_CACHE_BYTES "
                    "large enough for all trees"
                )
        return SegmentedImage(entry.item, entry.tree_key, tree, seconds, cached=True)

    return _isolate_failure(entry, read)


class LoadStep:
    """The first step, from an item to an image. Safe to share between threads."""

    def __init__(self, plan: Plan) -> None:
        self._plan, self._loader = plan, ImageLoader(plan.policy, plan.access)

    def __call__(self, item: Item | ItemFailure) -> LoadedImage | ItemFailure:
        """Read an image, and decode it unless its tree is cached."""
        return _isolate_failure(item, self._load)

    def _load(self, item: Item, seconds: dict[str, float]) -> LoadedImage:
        with _stage("read", seconds):
            data = read_image(item, self._loader, self._plan.policy)
            key = tree_key(image_digest(data), self._plan.segmenter_version)
            tree = self._cached_tree(key)
        if tree is not None:
            return LoadedImage(item, key, tree, seconds)
        with _stage("decode", seconds):
            return LoadedImage(item, key, decode(data, self._plan.limits), seconds)

    def _cached_tree(self, key: str) -> CutTree | None:
        """Return the cached tree, or `None` if there is none or it is damaged."""
        if self._plan.tree_dir is None:
            return None
        try:
            return read_tree(self._plan.tree_dir, key)
        except TreeFileError as error:
            log.warning("cut tree %s is damaged, so its image is segmented again: %s", key, error)
            return None


class SegmentStep:
    """The second step, from an image to its tree; it needs the model."""

    def __init__(self, segmenter: ImageSegmenter) -> None:
        self._segmenter = segmenter

    def __call__(self, image: LoadedImage | ItemFailure) -> SegmentedImage | ItemFailure:
        """Segment an image, unless its tree is cached."""
        return _isolate_failure(image, self._segment)

    def _segment(self, image: LoadedImage, seconds: dict[str, float]) -> SegmentedImage:
        if isinstance(image.content, CutTree):
            return SegmentedImage(image.item, image.key, image.content, image.seconds, cached=True)
        with _stage("tree", seconds):
            tree = self._segmenter.segment(image.content)
        return SegmentedImage(image.item, image.key, tree, {**image.seconds, **seconds})


class ExportStep:
    """The last step, from a tree to files staged for the checkpoint of a run.

    Raises `SettingsError` for files that cannot be written.
    """

    def __init__(self, plan: Plan, output_dir: Path) -> None:
        self._plan, self._output_dir = plan, output_dir

    def __call__(self, image: SegmentedImage | ItemFailure) -> Outcome:
        """Predict, encode and write an image's regions."""
        return _isolate_failure(image, self._export)

    def _export(self, image: SegmentedImage, seconds: dict[str, float]) -> ItemResult:
        with _stage("regions", seconds):
            tree = CutTree.from_bytes(image.tree) if isinstance(image.tree, bytes) else image.tree
            prediction = self._plan.predict(image.item, tree)
        with _stage("encode", seconds):
            output = self._plan.output_format.encode(prediction)
        with timed("write", seconds.__setitem__):
            files = stage_files(self._output_dir, output.files)
            tree_bytes = self._cache_tree(image, tree)
        key = "" if self._plan.tree_dir is None else image.key
        return ItemResult(image.item, files, output.record, key, tree_bytes, {**image.seconds, **seconds})

    def _cache_tree(self, image: SegmentedImage, tree: CutTree) -> int:
        """Write a new tree into the cache; return the size of its file, 0 if none was written."""
        if self._plan.tree_dir is None or image.cached:
            return 0
        try:
            content = image.tree if isinstance(image.tree, bytes) else tree.to_bytes()
            return write_tree(self._plan.tree_dir, image.key, content)
        except OSError as error:
            log.warning("cut tree %s was not cached: %s", image.key, error)
            return 0


StepJob = TypeVar("StepJob", bound="Item | CheckpointEntry | LoadedImage | SegmentedImage")


class _StageError(Exception):
    """A stage failed, for a reason that a user can read."""

    def __init__(self, stage: str, reason: str) -> None:
        super().__init__(reason)
        self.stage, self.reason = stage, reason


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
    job: StepJob | ItemFailure, step: Callable[[StepJob, dict[str, float]], Result]
) -> Result | ItemFailure:
    """Return the result of a step, or the image's failure: an earlier one, or that of a stage of this step."""
    if isinstance(job, ItemFailure):
        return job
    try:
        return step(job, {})
    except _StageError as error:
        item = job if isinstance(job, Item) else job.item
        return ItemFailure(item.key, item.reference, error.stage, error.reason)
