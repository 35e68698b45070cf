"""Where pictures go that are done: into a folder, or into a project of Label Studio."""

import json
import logging
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

from walkcut.bulk.checkpoint import Done, Ledger
from walkcut.bulk.formats import LabelStudioFormat
from walkcut.bulk.items import Format, Labelled, Output
from walkcut.bulk.sources.scan import task_keys
from walkcut.errors import StudioError
from walkcut.inference.predictor import Project
from walkcut.labelstudio import BrushTarget
from walkcut.labelstudio.client import Studio

log = logging.getLogger(__name__)

# Label Studio 1.23 counts the predictions of all of a project's tasks after each request, in 60 µs a task.
_MOST_PREDICTIONS = 200  # of one request, which Label Studio takes or leaves as one
_MOST_BYTES = 8 * 10**6
_WAITS_S = (5, 15, 60)  # before a request is sent again

_OWN_VERSION = re.compile(r".+-walkcut-.+-[0-9a-f]{8}")


@runtime_checkable
class Sink(Protocol):
    """Where pictures go that are done."""

    def is_settled(self, key: str) -> bool:
        """Whether a picture need not be tried: it has come here already, or has failed."""
        ...

    def keep(self, done: Done) -> None:
        """Keep one, now or with others."""
        ...

    def flush(self) -> None:
        """Keep those that wait for others."""
        ...

    def complete(self) -> None:
        """All are done."""
        ...


class FolderSink:
    """Keeps files and records in the ledger's folder, and writes there what holds all pictures of the format."""

    def __init__(self, ledger: Ledger, form: Format) -> None:
        self._ledger, self._form = ledger, form

    def is_settled(self, key: str) -> bool:
        """As the ledger has it."""
        return self._ledger.is_settled(key)

    def keep(self, done: Done) -> None:
        """At once."""
        self._ledger.keep(done)

    def flush(self) -> None:
        """None waits."""

    def complete(self) -> None:
        """Write what holds all pictures."""
        self._ledger.assemble(self._form)


@dataclass(frozen=True)
class TaskFormat:
    """Predictions for tasks that are in Label Studio: each picture's on its own, as a record; they leave no file."""

    name: ClassVar[str] = "project"
    targets: Sequence[BrushTarget]

    def encode(self, picture: Labelled) -> Output:
        """The predictions of a picture."""
        return LabelStudioFormat(self.targets[picture.item.target]).encode(picture)

    def assemble(self, records: Iterable[Mapping[str, Any]], out: Path) -> None:
        """They are in Label Studio."""


class StudioSink:
    """Puts predictions into a project of Label Studio, all of a task in one request, and takes note of it afterwards.

    Whether a task has been predicted is what Label Studio says, so that predictions deleted there are made anew. Of
    the `versions` those are left out that a task has when its request is sent. With `replacing`, walkcut's predictions
    of other versions are deleted in the end from tasks that have all of these and that nobody has annotated or skipped,
    save those of the version that the project's settings choose.
    """

    def __init__(
        self,
        ledger: Ledger,
        studio: Studio,
        number: str,
        project: Project,
        versions: Iterable[str],
        *,
        replacing: bool = False,
    ) -> None:
        self._ledger, self._studio, self._number = ledger, studio, number
        self._targets, self._versions, self._replacing = project.targets, frozenset(versions), replacing
        self._parts: dict[int, dict[str, Done]] = {}  # of tasks some of whose pictures are not done
        self._waiting: list[Done] = []
        self._predictions: list[tuple[int, Mapping[str, Any]]] = []
        self._bytes = 0

    def is_settled(self, key: str) -> bool:
        """Whether a picture has failed."""
        return self._ledger.has_failed(key)

    def keep(self, done: Done) -> None:
        """With the other pictures of its task, and with as many other tasks as one request takes."""
        task = done.item.task or 0
        parts = self._parts.setdefault(task, {})
        parts[done.item.key] = done
        if len(parts) < len(self._targets):
            return
        del self._parts[task]
        pictures = [parts[key] for key in task_keys(task, self._targets)]
        predictions = whole_predictions([each.record["predictions"] for each in pictures])
        size = len(json.dumps(predictions))
        if len(self._predictions) + len(predictions) > _MOST_PREDICTIONS or self._bytes + size > _MOST_BYTES:
            self.flush()
        self._waiting += pictures
        self._predictions += [(task, each) for each in predictions]
        self._bytes += size

    def flush(self) -> None:
        """Send the predictions that wait, again and again if Label Studio is away, and take note of their tasks."""
        predictions, waiting = self._predictions, self._waiting
        self._predictions, self._waiting, self._bytes = [], [], 0
        present = _patiently(partial(self._send, predictions)) if predictions else set()
        for done in waiting:
            if done.item.task in present and not self._ledger.is_settled(done.item.key):
                self._ledger.keep(replace(done, record={"task": done.item.task}))

    def _send(self, predictions: Sequence[tuple[int, Mapping[str, Any]]]) -> set[int]:
        """Send those that are not there; which of their tasks there are."""
        # An earlier try may have been taken though its answer was lost, and the backend may have been asked meanwhile.
        present = self._studio.versions(self._number, {task for task, _ in predictions})
        new = [
            {"task": task, **each}
            for task, each in predictions
            if task in present and each["model_version"] not in present[task]
        ]
        if new:
            self._studio.add_predictions(self._number, new)
        return set(present)

    def complete(self) -> None:
        """Send the last ones, and delete what they replace."""
        self.flush()
        if self._replacing:
            log.info("%d predictions of earlier versions deleted", self._replace())

    def _replace(self) -> int:
        """Delete what new predictions take the place of; how many."""
        kept, deleted = {*self._versions, self._studio.chosen_version(self._number)}, 0
        for task, versions in self._studio.untouched(self._number):
            if not self._versions <= versions or not any(is_replaceable(each) for each in versions - kept):
                continue
            found = self._studio.predictions(task["id"])
            if not any(self._studio.untouched(self._number, [task["id"]])):
                continue  # annotated meanwhile
            old = [number for number, version in found.items() if is_replaceable(version) and version not in kept]
            for number in old:
                self._studio.delete_prediction(number)
            deleted += len(old)
        return deleted


def _patiently(send: Callable[[], set[int]]) -> set[int]:
    """Try again after a while where Label Studio is away."""
    for seconds in _WAITS_S:
        try:
            return send()
        except StudioError as error:
            log.warning("%s; tried again in %d s", error, seconds)
            time.sleep(seconds)
    return send()


def is_replaceable(version: str) -> bool:
    """Whether a version is of walkcut's making (`model_version`), and not of segments that an annotator folded."""
    return _OWN_VERSION.fullmatch(version) is not None


def whole_predictions(parts: Sequence[Sequence[Mapping[str, Any]]]) -> list[Mapping[str, Any]]:
    """The predictions of a task, from those of each of its pictures: a version's regions together, and their score."""
    whole: list[Mapping[str, Any]] = []
    for same in zip(*parts, strict=True):
        result = [region for each in same for region in each["result"]]
        score = sum(region["score"] for region in result) / max(1, len(result))
        whole.append({"result": result, "score": score, "model_version": same[0]["model_version"]})
    return whole
