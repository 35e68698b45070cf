"""Cut trees of pictures, from the cache or grown by the model: one at a time, for annotators first."""

import threading
from bisect import insort
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Protocol, runtime_checkable

import numpy as np

from walkcut.errors import BusyError
from walkcut.hierarchy.cut_tree import CutTree
from walkcut.images import Deadline, DecodeLimits, decode
from walkcut.segmentation.segmenter import Segmenter
from walkcut.storage import Place, TreeCache, picture_digest, tree_key
from walkcut.telemetry.metrics import Metrics
from walkcut.telemetry.stages import stage


@dataclass(frozen=True)
class Turn:
    """When a picture has its turn: before others where an annotator waits, and before a deadline or never."""

    urgent: bool = False
    deadline: Deadline | None = None

    def remaining(self) -> float | None:
        """Seconds that are left; `None` for any number. Raises `BusyError` at the end."""
        try:
            return None if self.deadline is None else min(self.deadline.remaining(), threading.TIMEOUT_MAX)
        except TimeoutError as error:
            raise _too_late() from error


class Turns:
    """Who may use the model: one at a time, annotators before others, and else whoever came first."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: list[tuple[bool, int]] = []  # whether it can wait, and a number; the next one first
        self._numbers = count()
        self._taken = self._closed = False

    @property
    def closed(self) -> bool:
        """Whether nobody gets a turn any more."""
        return self._closed

    def waiting(self, *, urgent: bool) -> int:
        """How many wait for their turn, annotators or others."""
        with self._changed:
            return sum(patient != urgent for patient, _ in self._waiting)

    def take(self, turn: Turn) -> None:
        """Wait for a turn, which has to be given back. Raises `BusyError` where there is none before the deadline."""
        with self._changed:
            ticket = (not turn.urgent, next(self._numbers))
            insort(self._waiting, ticket)
            try:
                in_time = self._changed.wait_for(lambda: self._closed or self._is_next(ticket), turn.remaining())
                if self._closed:
                    raise BusyError("walkcut is shutting down: ask again")
                if not in_time:
                    raise _too_late()
                self._taken = True
            finally:
                self._waiting.remove(ticket)
                self._changed.notify_all()

    def give_back(self) -> None:
        """Let the next one have its turn."""
        with self._changed:
            self._taken = False
            self._changed.notify_all()

    def close(self) -> None:
        """Send all away that wait or come."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _is_next(self, ticket: tuple[bool, int]) -> bool:
        return not self._taken and self._waiting[0] == ticket


@dataclass(frozen=True)
class Picture:
    """A picture's file, what names it, and the place in it that matters, if it is not all."""

    digest: str
    data: bytes
    place: Place | None = None


@runtime_checkable
class Model(Protocol):
    """What grows cut trees, asked for one at a time."""

    @property
    def version(self) -> str:
        """What changes with anything that changes trees."""
        ...

    @property
    def method(self) -> str:
        """The name of its recipe."""
        ...

    @property
    def trouble(self) -> str:
        """Why it cannot be asked now; empty where it can."""
        ...

    def grow(self, picture: Picture) -> bytes:
        """The file of a picture's cut tree. Raises `ImageError`, `SegmentationError` or `BusyError`."""
        ...

    def close(self) -> None:
        """Let go of it; what is being grown ends with `BusyError`."""
        ...


@dataclass(frozen=True)
class LocalModel:
    """A model in this process."""

    segmenter: Segmenter
    limits: DecodeLimits

    @property
    def version(self) -> str:
        """The segmenter's."""
        return self.segmenter.version

    @property
    def method(self) -> str:
        """The name of its recipe."""
        return self.segmenter.recipe.name

    @property
    def trouble(self) -> str:
        """It has none."""
        return ""

    def grow(self, picture: Picture) -> bytes:
        """Decode a picture, and cut it."""
        with stage("decode"):
            image = decode(picture.data, self.limits)
        part = image if picture.place is None else np.ascontiguousarray(image[picture.place])
        return self.segmenter.tree(part).to_bytes()

    def close(self) -> None:
        """There is nothing to let go of."""


class Grower:
    """Cut trees by picture: from the cache, or else from the model."""

    def __init__(self, model: Model, cache: TreeCache, metrics: Metrics | None = None) -> None:
        self._model, self._cache, self._turns, self._metrics = model, cache, Turns(), metrics or Metrics()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self.version, self.method = model.version, model.method
        for who, urgent in (("annotators", True), ("others", False)):
            self._metrics.waiting.labels(who).set_function(partial(self._turns.waiting, urgent=urgent))

    @property
    def trouble(self) -> str:
        """Why no tree can be grown now; empty where one can."""
        return "shutting down" if self._turns.closed else self._model.trouble

    def known(self, digest: str, place: Place | None) -> CutTree | None:
        """The tree that was grown before of a picture by its digest, if it was kept."""
        key = tree_key(digest, self.version, place)
        tree, source = self._cache.remembered(key), "memory"
        if tree is None:
            tree, source = self._cache.get(key), "file"
        if tree is not None:
            self._metrics.trees.labels(source).inc()
        return tree

    def tree(self, data: bytes, place: Place | None, turn: Turn) -> CutTree:
        """The cut tree of a picture, or of a place in it.

        Raises `BusyError` at the turn's deadline: what is being grown then is kept for whoever asks next. Raises as
        `Model.grow` too.
        """
        picture = Picture(picture_digest(data), data, place)
        if (tree := self.known(picture.digest, place)) is not None:
            return tree
        with stage("wait"):
            self._turns.take(turn)
        growing = self._thread.submit(copy_context().run, self._grow, picture)
        try:
            return growing.result(turn.remaining())
        except FutureTimeoutError as error:
            raise _too_late() from error

    def refuse(self) -> None:
        """Grow nothing more, but end what was begun."""
        self._turns.close()

    def close(self) -> None:
        """Let go of the model."""
        self._turns.close()
        self._model.close()
        self._thread.shutdown()

    def _grow(self, picture: Picture) -> CutTree:
        """Grow and keep a tree, unless another request has waited for the same one."""
        try:
            tree = self.known(picture.digest, picture.place)
            return self._keep(picture, self._model.grow(picture)) if tree is None else tree
        finally:
            self._turns.give_back()

    def _keep(self, picture: Picture, file: bytes) -> CutTree:
        """Keep a tree by its file, or at least in memory where no file can be kept."""
        self._metrics.trees.labels("grown").inc()
        key, tree = tree_key(picture.digest, self.version, picture.place), CutTree.from_bytes(file)
        self._cache.put_bytes(key, file)
        self._cache.use(key, tree)
        return tree


def _too_late() -> BusyError:
    return BusyError("there was no time left for it: ask again")
