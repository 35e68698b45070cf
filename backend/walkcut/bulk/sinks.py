"""Where images go that are done: into a folder, or into a project of Label Studio."""

import json
import logging
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

from walkcut.bulk.checkpoint import Checkpoint, ItemResult
from walkcut.bulk.formats import LabelStudioFormat
from walkcut.bulk.items import EncodedItem, Format, ItemPrediction
from walkcut.bulk.sources.scan import task_keys
from walkcut.errors import LabelStudioError
from walkcut.inference.project import Project
from walkcut.labelstudio import BrushControl
from walkcut.labelstudio.client import LabelStudioClient

log = logging.getLogger(__name__)

# Label Studio 1.23 counts the predictions of all of a project's tasks after each request, in 60 µs a task.
_MOST_PREDICTIONS = 200  # of one request, which Label Studio takes or leaves as one
_MOST_BYTES = 8 * 10**6
_WAITS_S = (5, 15, 60)  # before a request is sent again

_OWN_VERSION = re.compile(r".+-walkcut-.+-[0-9a-f]{8}")


@runtime_checkable
class Sink(Protocol):
    """Where images go that are done."""

    def is_done(self, key: str) -> bool:
        """Whether an image need not be tried: it has come here already, or has failed."""
        ...

    def save(self, done: ItemResult) -> None:
        """Keep one, now or with others."""
        ...

    def flush(self) -> None:
        """Keep those that wait for others."""
        ...

    def finalise(self) -> None:
        """All are done."""
        ...


class FolderSink:
    """Keeps files and records in the ledger's folder, and writes there what holds all images of the format."""

    def __init__(self, checkpoint: Checkpoint, form: Format) -> None:
        self._checkpoint, self._form = checkpoint, form

    def is_done(self, key: str) -> bool:
        """As the ledger has it."""
        return self._checkpoint.is_done(key)

    def save(self, done: ItemResult) -> None:
        """At once."""
        self._checkpoint.save(done)

    def flush(self) -> None:
        """None waits."""

    def finalise(self) -> None:
        """Write what holds all images."""
        self._checkpoint.assemble(self._form)


@dataclass(frozen=True)
class TaskFormat:
    """Predictions for tasks that are in Label Studio: each image's on its own, as a record; they leave no file."""

    name: ClassVar[str] = "project"
    controls: Sequence[BrushControl]

    def encode(self, image: ItemPrediction) -> EncodedItem:
        """The predictions of an image."""
        return LabelStudioFormat(self.controls[image.item.control]).encode(image)

    def assemble(self, records: Iterable[Mapping[str, Any]], out: Path) -> None:
        """They are in Label Studio."""


class LabelStudioSink:
    """Puts predictions into a project of Label Studio, all of a task in one request, and takes note of it afterwards.

    Whether a task has been predicted is what Label Studio says, so that predictions deleted there are made anew. Of
    the `versions` those are left out that a task has when its request is sent. With `replacing`, walkcut's predictions
    of other versions are deleted in the end from tasks that have all of these and that nobody has annotated or skipped,
    save those of the version that the project's settings choose.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        client: LabelStudioClient,
        number: str,
        project: Project,
        versions: Iterable[str],
        *,
        replacing: bool = False,
    ) -> None:
        self._checkpoint, self._client, self._number = checkpoint, client, number
        self._targets, self._versions, self._replacing = project.controls, frozenset(versions), replacing
        self._parts: dict[int, dict[str, ItemResult]] = {}  # of tasks some of whose images are not done
        self._waiting: list[ItemResult] = []
        self._predictions: list[tuple[int, Mapping[str, Any]]] = []
        self._bytes = 0

    def is_done(self, key: str) -> bool:
        """Whether an image has failed."""
        return self._checkpoint.has_failed(key)

    def save(self, done: ItemResult) -> None:
        """With the other images of its task, and with as many other tasks as one request takes."""
        task = done.item.task or 0
        parts = self._parts.setdefault(task, {})
        parts[done.item.key] = done
        if len(parts) < len(self._targets):
            return
        del self._parts[task]
        images = [parts[key] for key in task_keys(task, self._targets)]
        predictions = merge_predictions([each.record["predictions"] for each in images])
        size = len(json.dumps(predictions))
        if len(self._predictions) + len(predictions) > _MOST_PREDICTIONS or self._bytes + size > _MOST_BYTES:
            self.flush()
        self._waiting += images
        self._predictions += [(task, each) for each in predictions]
        self._bytes += size

    def flush(self) -> None:
        """Send the predictions that wait, again and again if Label Studio is away, and take note of their tasks."""
        predictions, waiting = self._predictions, self._waiting
        self._predictions, self._waiting, self._bytes = [], [], 0
        present = _patiently(partial(self._send, predictions)) if predictions else set()
        for done in waiting:
            if done.item.task in present and not self._checkpoint.is_done(done.item.key):
                self._checkpoint.save(replace(done, record={"task": done.item.task}))

    def _send(self, predictions: Sequence[tuple[int, Mapping[str, Any]]]) -> set[int]:
        """Send those that are not there; which of their tasks there are."""
        # An earlier try may have been taken though its answer was lost, and the backend may have been asked meanwhile.
        present = self._client.versions(self._number, {task for task, _ in predictions})
        new = [
            {"task": task, **each}
            for task, each in predictions
            if task in present and each["model_version"] not in present[task]
        ]
        if new:
            self._client.add_predictions(self._number, new)
        return set(present)

    def finalise(self) -> None:
        """Send the last ones, and delete what they replace."""
        self.flush()
        if self._replacing:
            log.info("%d predictions of earlier versions deleted", self._replace())

    def _replace(self) -> int:
        """Delete what new predictions take the place of; how many."""
        kept, deleted = {*self._versions, self._client.chosen_version(self._number)}, 0
        for task, versions in self._client.tasks_neither_annotated_nor_skipped(self._number):
            if not self._versions <= versions or not any(is_replaceable(each) for each in versions - kept):
                continue
            found = self._client.predictions(task["id"])
            if not any(self._client.tasks_neither_annotated_nor_skipped(self._number, [task["id"]])):
                continue  # annotated meanwhile
            old = [number for number, version in found.items() if is_replaceable(version) and version not in kept]
            for number in old:
                self._client.delete_prediction(number)
            deleted += len(old)
        return deleted


def _patiently(send: Callable[[], set[int]]) -> set[int]:
    """Try again after a while where Label Studio is away."""
    for seconds in _WAITS_S:
        try:
            return send()
        except LabelStudioError as error:
            log.warning("%s; tried again in %d s", error, seconds)
            time.sleep(seconds)
    return send()


def is_replaceable(version: str) -> bool:
    """Whether a version is of walkcut's making (`model_version`), and not of segments that an annotator folded."""
    return _OWN_VERSION.fullmatch(version) is not None


def merge_predictions(parts: Sequence[Sequence[Mapping[str, Any]]]) -> list[Mapping[str, Any]]:
    """The predictions of a task, from those of each of its images: a version's regions together, and their score."""
    whole: list[Mapping[str, Any]] = []
    for same in zip(*parts, strict=True):
        result = [region for each in same for region in each["result"]]
        score = sum(region["score"] for region in result) / max(1, len(result))
        whole.append({"result": result, "score": score, "model_version": same[0]["model_version"]})
    return whole
