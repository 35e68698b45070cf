"""What is done to one picture: read, decode, tree, regions, encode, write. It fails alone."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import UInt8

from walkcut.bulk.checkpoint import Done, Entry, Failure, Outcome, write_parts
from walkcut.bulk.items import Format, Item, Labelled, Labelling, Segment
from walkcut.bulk.sources.uris import read_place
from walkcut.errors import ImageError, TreeFileError, WalkcutError
from walkcut.hierarchy.cut_tree import CutTree
from walkcut.hierarchy.granularity import Granularity
from walkcut.images import DecodeLimits, FetchPolicy, LabelStudioAccess, PictureSource, decode
from walkcut.inference.predictor import Project, find_regions, model_version
from walkcut.segmentation.segmenter import Segmenter
from walkcut.storage import picture_digest, read_tree, tree_key, write_tree

log = logging.getLogger(__name__)

Result = TypeVar("Result")


@dataclass(frozen=True)
class Plan:
    """What is wished of every picture; small, and may be sent to other processes.

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

    def labelled(self, item: Item, tree: CutTree) -> Labelled:
        """A picture's regions at each granularity."""
        target = self.project.targets[item.target]
        labellings = [
            Labelling(
                version,
                [
                    Segment(region.mask, region.label, region.score, region.notes)
                    for region in find_regions(tree, granularity, self.project, target)
                ],
            )
            for granularity, version in zip(self.granularities, self.versions, strict=True)
        ]
        return Labelled(item, tree.size, labellings)


@dataclass(frozen=True)
class Loaded:
    """A picture that was read: the key of its tree, and its pixels, or the tree that was grown of them before."""

    item: Item
    key: str
    content: UInt8[np.ndarray, "y x 3"] | CutTree
    seconds: Mapping[str, float]


@dataclass(frozen=True)
class Grown:
    """A picture with its tree, or the file of it where it goes to another process; `known` if it came from a cache."""

    item: Item
    key: str
    tree: CutTree | bytes
    seconds: Mapping[str, float]
    known: bool = False

    def packed(self) -> "Grown":
        """The same with the tree as a file."""
        return replace(self, tree=self.tree.to_bytes()) if isinstance(self.tree, CutTree) else self


class Reading:
    """The first part of the work: from an item to a picture. Safe to share between threads."""

    def __init__(self, plan: Plan) -> None:
        self._plan, self._source = plan, PictureSource(plan.policy, plan.access)

    def __call__(self, item: Item | Failure) -> Loaded | Failure:
        """Read and decode a picture, unless its tree is known."""
        return item if isinstance(item, Failure) else _guarded(item, self._read)

    def _read(self, item: Item, seconds: dict[str, float]) -> Loaded:
        with _stage("read", seconds):
            data = read_place(item, self._source, self._plan.policy)
            key = tree_key(picture_digest(data), self._plan.segmenter)
            tree = self._known_tree(key)
        if tree is not None:
            return Loaded(item, key, tree, seconds)
        with _stage("decode", seconds):
            return Loaded(item, key, decode(data, self._plan.limits), seconds)

    def _known_tree(self, key: str) -> CutTree | None:
        """The tree that was grown before, unless it is damaged."""
        if self._plan.trees is None:
            return None
        try:
            return read_tree(self._plan.trees, key)
        except TreeFileError as error:
            log.warning("the cut tree %s is grown anew: %s", key, error)
            return None


class Growing:
    """The second part, for which the model is needed: from a picture to its tree."""

    def __init__(self, segmenter: Segmenter) -> None:
        self._segmenter = segmenter

    def __call__(self, picture: Loaded | Failure) -> Grown | Failure:
        """Grow a picture's tree, unless it is known."""
        if isinstance(picture, Failure):
            return picture
        return _guarded(picture.item, lambda item, seconds: self._grow(item, picture, seconds))

    def _grow(self, item: Item, picture: Loaded, seconds: dict[str, float]) -> Grown:
        if isinstance(picture.content, CutTree):
            return Grown(item, picture.key, picture.content, picture.seconds, known=True)
        with _stage("tree", seconds):
            tree = self._segmenter.tree(picture.content)
        return Grown(item, picture.key, tree, {**picture.seconds, **seconds})


class Finishing:
    """The last part: from a tree to what the format makes of its regions, in files for the ledger of the run in `out`.

    Raises `SettingsError` where these cannot be written.
    """

    def __init__(self, plan: Plan, out: Path) -> None:
        self._plan, self._out = plan, out

    def __call__(self, grown: Grown | Failure) -> Outcome:
        """Find, encode and write a picture's regions."""
        if isinstance(grown, Failure):
            return grown
        return _guarded(grown.item, lambda item, seconds: self._finish(item, grown, seconds))

    def _finish(self, item: Item, grown: Grown, seconds: dict[str, float]) -> Done:
        with _stage("regions", seconds):
            tree = CutTree.from_bytes(grown.tree) if isinstance(grown.tree, bytes) else grown.tree
            labelled = self._plan.labelled(item, tree)
        with _stage("encode", seconds):
            output = self._plan.form.encode(labelled)
        with _timed("write", seconds):
            files = write_parts(self._out, output.files)
            tree_bytes = self._keep_tree(grown, tree)
        key = "" if self._plan.trees is None else grown.key
        return Done(item, files, output.record, key, tree_bytes, {**grown.seconds, **seconds})

    def _keep_tree(self, grown: Grown, tree: CutTree) -> int:
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
class Labeller:
    """The whole work, made once in each process: the first part for threads, and the rest."""

    prepare: Reading
    growing: Growing
    finishing: Finishing

    def complete(self, picture: Loaded | Failure) -> Outcome:
        """All that follows `prepare`."""
        return self.finishing(self.growing(picture))

    def __call__(self, item: Item | Failure) -> Outcome:
        """All that is done to a picture."""
        return self.complete(self.prepare(item))


def make_labeller(plan: Plan, out: Path, load: Callable[[], Segmenter]) -> Labeller:
    """The whole work, with a model that is loaded now."""
    return Labeller(Reading(plan), Growing(load()), Finishing(plan, out))


@dataclass(frozen=True)
class Finisher:
    """The last part alone, for processes beside the one that has the model."""

    finishing: Finishing

    def prepare(self, grown: Grown | Failure) -> Grown | Failure:
        """There is nothing to prepare."""
        return grown

    def complete(self, grown: Grown | Failure) -> Outcome:
        """The last part."""
        return self.finishing(grown)


def make_finisher(plan: Plan, out: Path) -> Finisher:
    """The last part of the work."""
    return Finisher(Finishing(plan, out))


@dataclass(frozen=True)
class Recutter:
    """From the tree that an earlier run kept of a picture to its regions, without the model."""

    plan: Plan
    folder: Path  # of the trees
    out: Path

    def prepare(self, entry: Entry) -> Grown | Failure:
        """Find the tree again."""
        return _guarded(entry.item, lambda item, seconds: self._find(item, entry, seconds))

    def complete(self, grown: Grown | Failure) -> Outcome:
        """Cut it anew."""
        return Finishing(self.plan, self.out)(grown)

    def _find(self, item: Item, entry: Entry, seconds: dict[str, float]) -> Grown:
        with _stage("read", seconds):
            tree = read_tree(self.folder, entry.tree) if entry.tree else None
            if tree is None:
                raise ImageError(
                    "its cut tree is not there any more, or was not kept: run `walkcut prelabel --trees` again, with "
                    "WALKCUT_CACHE_BYTES large enough for all trees"
                )
        return Grown(item, entry.tree, tree, seconds, known=True)


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


def _guarded(item: Item, step: Callable[[Item, dict[str, float]], Result]) -> Result | Failure:
    """What a step comes to, or the failure of its picture alone."""
    try:
        return step(item, {})
    except _StageError as error:
        return Failure(item.key, item.reference, error.stage, error.reason)
