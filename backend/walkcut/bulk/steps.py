"""What is done to one image: read, decode, tree, regions, encode, write. It fails alone."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import UInt8

from walkcut.bulk.checkpoint import CheckpointEntry, ItemFailure, ItemResult, Outcome, write_parts
from walkcut.bulk.items import Format, Item, ItemPrediction, RegionPrediction
from walkcut.bulk.sources.uris import read_image
from walkcut.errors import ImageError, TreeFileError, WalkcutError
from walkcut.hierarchy.cut_tree import CutTree
from walkcut.hierarchy.granularity import Granularity
from walkcut.images import DecodeLimits, FetchPolicy, ImageLoader, LabelStudioAccess, decode
from walkcut.inference.predictor import regions_at_granularity
from walkcut.inference.project import Project, model_version
from walkcut.segmentation.segmenter import Segmenter
from walkcut.storage import image_digest, read_tree, tree_key, write_tree

log = logging.getLogger(__name__)

Result = TypeVar("Result")


@dataclass(frozen=True)
class Plan:
    """What is wished of every image; small, and may be sent to other processes.

    `segmenter` and `method` are the versions that predictions bear; `trees` is the folder of a tree cache, from which
    trees are taken, and into which new ones go.
    """

    project: Project
    granularities: tuple[Granularity, ...]
    form: Format
    segmenter: str
    method: str
    limits: DecodeLimits = field(default_factory=DecodeLimits)
    policy: FetchPolicy = field(default_factory=FetchPolicy)
    access: LabelStudioAccess | None = None
    trees: Path | None = None

    @property
    def versions(self) -> tuple[str, ...]:
        """The model version of each granularity."""
        return tuple(
            model_version(self.segmenter, self.method, self.project, granularity) for granularity in self.granularities
        )

    def labelled(self, item: Item, tree: CutTree) -> ItemPrediction:
        """An image's regions at each granularity."""
        control = self.project.controls[item.control]
        predictions = [
            RegionPrediction(version, regions_at_granularity(tree, granularity, self.project, control))
            for granularity, version in zip(self.granularities, self.versions, strict=True)
        ]
        return ItemPrediction(item, tree.size, predictions)


@dataclass(frozen=True)
class LoadedImage:
    """An image that was read: the key of its tree, and its pixels, or the tree that was grown of them before."""

    item: Item
    key: str
    content: UInt8[np.ndarray, "y x 3"] | CutTree
    seconds: Mapping[str, float]


@dataclass(frozen=True)
class SegmentedImage:
    """An image with its tree, or the file of it where it goes to another process; `known` if it came from a cache."""

    item: Item
    key: str
    tree: CutTree | bytes
    seconds: Mapping[str, float]
    known: bool = False

    def packed(self) -> "SegmentedImage":
        """The same with the tree as a file."""
        return replace(self, tree=self.tree.to_bytes()) if isinstance(self.tree, CutTree) else self


class LoadStep:
    """The first part of the work: from an item to an image. Safe to share between threads."""

    def __init__(self, plan: Plan) -> None:
        self._plan, self._source = plan, ImageLoader(plan.policy, plan.access)

    def __call__(self, item: Item | ItemFailure) -> LoadedImage | ItemFailure:
        """Read and decode an image, unless its tree is known."""
        return item if isinstance(item, ItemFailure) else _guarded(item, self._read)

    def _read(self, item: Item, seconds: dict[str, float]) -> LoadedImage:
        with _stage("read", seconds):
            data = read_image(item, self._source, self._plan.policy)
            key = tree_key(image_digest(data), self._plan.segmenter)
            tree = self._known_tree(key)
        if tree is not None:
            return LoadedImage(item, key, tree, seconds)
        with _stage("decode", seconds):
            return LoadedImage(item, key, decode(data, self._plan.limits), seconds)

    def _known_tree(self, key: str) -> CutTree | None:
        """The tree that was grown before, unless it is damaged."""
        if self._plan.trees is None:
            return None
        try:
            return read_tree(self._plan.trees, key)
        except TreeFileError as error:
            log.warning("the cut tree %s is grown anew: %s", key, error)
            return None


class SegmentStep:
    """The second part, for which the model is needed: from an image to its tree."""

    def __init__(self, segmenter: Segmenter) -> None:
        self._segmenter = segmenter

    def __call__(self, image: LoadedImage | ItemFailure) -> SegmentedImage | ItemFailure:
        """Grow an image's tree, unless it is known."""
        if isinstance(image, ItemFailure):
            return image
        return _guarded(image.item, lambda item, seconds: self._grow(item, image, seconds))

    def _grow(self, item: Item, image: LoadedImage, seconds: dict[str, float]) -> SegmentedImage:
        if isinstance(image.content, CutTree):
            return SegmentedImage(item, image.key, image.content, image.seconds, known=True)
        with _stage("tree", seconds):
            tree = self._segmenter.segment(image.content)
        return SegmentedImage(item, image.key, tree, {**image.seconds, **seconds})


class ExportStep:
    """The last part: from a tree to what the format makes of its regions, in files for the ledger of the run in `out`.

    Raises `SettingsError` where these cannot be written.
    """

    def __init__(self, plan: Plan, out: Path) -> None:
        self._plan, self._out = plan, out

    def __call__(self, grown: SegmentedImage | ItemFailure) -> Outcome:
        """Find, encode and write an image's regions."""
        if isinstance(grown, ItemFailure):
            return grown
        return _guarded(grown.item, lambda item, seconds: self._finish(item, grown, seconds))

    def _finish(self, item: Item, grown: SegmentedImage, seconds: dict[str, float]) -> ItemResult:
        with _stage("regions", seconds):
            tree = CutTree.from_bytes(grown.tree) if isinstance(grown.tree, bytes) else grown.tree
            labelled = self._plan.labelled(item, tree)
        with _stage("encode", seconds):
            output = self._plan.form.encode(labelled)
        with _timed("write", seconds):
            files = write_parts(self._out, output.files)
            tree_bytes = self._keep_tree(grown, tree)
        key = "" if self._plan.trees is None else grown.key
        return ItemResult(item, files, output.record, key, tree_bytes, {**grown.seconds, **seconds})

    def _keep_tree(self, grown: SegmentedImage, tree: CutTree) -> int:
        """Bytes of the tree's file, if it is new and can be kept."""
        if self._plan.trees is None or grown.known:
            return 0
        try:
            content = grown.tree if isinstance(grown.tree, bytes) else tree.to_bytes()
            return write_tree(self._plan.trees, grown.key, content)
        except OSError as error:
            log.warning("the cut tree %s was not kept: %s", grown.key, error)
            return 0


@dataclass(frozen=True)
class FullWorker:
    """The whole work, made once in each process: the first part for threads, and the rest."""

    prefetch: LoadStep
    growing: SegmentStep
    finishing: ExportStep

    def run(self, image: LoadedImage | ItemFailure) -> Outcome:
        """All that follows `prefetch`."""
        return self.finishing(self.growing(image))

    def __call__(self, item: Item | ItemFailure) -> Outcome:
        """All that is done to an image."""
        return self.run(self.prefetch(item))


def make_full_worker(plan: Plan, out: Path, load: Callable[[], Segmenter]) -> FullWorker:
    """The whole work, with a model that is loaded now."""
    return FullWorker(LoadStep(plan), SegmentStep(load()), ExportStep(plan, out))


@dataclass(frozen=True)
class ExportWorker:
    """The last part alone, for processes beside the one that has the model."""

    finishing: ExportStep

    def prefetch(self, grown: SegmentedImage | ItemFailure) -> SegmentedImage | ItemFailure:
        """There is nothing to prepare."""
        return grown

    def run(self, grown: SegmentedImage | ItemFailure) -> Outcome:
        """The last part."""
        return self.finishing(grown)


def make_export_worker(plan: Plan, out: Path) -> ExportWorker:
    """The last part of the work."""
    return ExportWorker(ExportStep(plan, out))


@dataclass(frozen=True)
class ReexportWorker:
    """From the tree that an earlier run kept of an image to its regions, without the model."""

    plan: Plan
    folder: Path  # of the trees
    out: Path

    def prefetch(self, entry: CheckpointEntry) -> SegmentedImage | ItemFailure:
        """Find the tree again."""
        return _guarded(entry.item, lambda item, seconds: self._find(item, entry, seconds))

    def run(self, grown: SegmentedImage | ItemFailure) -> Outcome:
        """Cut it anew."""
        return ExportStep(self.plan, self.out)(grown)

    def _find(self, item: Item, entry: CheckpointEntry, seconds: dict[str, float]) -> SegmentedImage:
        with _stage("read", seconds):
            tree = read_tree(self.folder, entry.tree) if entry.tree else None
            if tree is None:
                raise ImageError(
                    "its cut tree is not there any more, or was not kept: run `walkcut prelabel --trees` again, with "
                    "WALKCUT_CACHE_BYTES large enough for all trees"
                )
        return SegmentedImage(item, entry.tree, tree, seconds, known=True)


class _StageError(Exception):
    """A stage failed, for a reason that a user can read."""

    def __init__(self, stage: str, reason: str) -> None:
        super().__init__(reason)
        self.stage, self.reason = stage, reason


@contextmanager
def _stage(name: str, seconds: dict[str, float]) -> Iterator[None]:
    """Measure a stage, and say of which one an error is."""
    try:
        with _timed(name, seconds):
            yield
    except (WalkcutError, OSError) as error:
        raise _StageError(name, str(error)) from error
    except Exception as error:
        log.exception("a defect of walkcut, please report it")
        raise _StageError(name, f"a defect of walkcut, please report it: {type(error).__name__}: {error}") from error


@contextmanager
def _timed(name: str, seconds: dict[str, float]) -> Iterator[None]:
    """Measure a stage."""
    begin = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - begin


def _guarded(item: Item, step: Callable[[Item, dict[str, float]], Result]) -> Result | ItemFailure:
    """What a step comes to, or the failure of its image alone."""
    try:
        return step(item, {})
    except _StageError as error:
        return ItemFailure(item.key, item.reference, error.stage, error.reason)
