"""Sinks take finished images: into a folder, or into a project of Label Studio."""

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_chain, wait_fixed

from walkcut.bulk.checkpoint import Checkpoint
from walkcut.bulk.formats import Format
from walkcut.bulk.formats.labelstudio import encode_predictions
from walkcut.bulk.items import EncodedItem, ItemFailure, ItemPrediction, ItemResult, Skipped
from walkcut.bulk.sources.tasks import task_keys, task_of_key
from walkcut.errors import LabelStudioError
from walkcut.inference.project import Project, is_model_version
from walkcut.labelstudio.client import LabelStudioClient
from walkcut.labelstudio.config import ImageTag
from walkcut.labelstudio.predictions import Prediction, without_duplicates
from walkcut.labelstudio.tasks import Task

log = logging.getLogger(__name__)

# Label Studio 1.23 counts the predictions of all of a project's tasks after each request, in 60 µs a task.
_MAX_PREDICTIONS = 200  # in one request, which Label Studio accepts or rejects as a whole
_MAX_BYTES = 8 * 10**6
_MAX_ATTEMPTS = 4  # at a request
_RETRY_WAITS_S = (5, 15, 60)


class Sink:
    """Takes finished images: into the folder of the checkpoint, with the files that describe all of them."""

    def __init__(self, checkpoint: Checkpoint, output_format: Format) -> None:
        self._checkpoint, self._output_format = checkpoint, output_format

    def recover(self) -> None:
        """Take the images that an earlier run had sent when it was killed."""

    def is_done(self, key: str) -> bool:
        """Return whether an image needs no processing: it was taken earlier, or has failed."""
        return self._checkpoint.is_done(key)

    def save(self, result: ItemResult) -> None:
        """Take an image, now or in a batch with others."""
        self._checkpoint.save(result)

    def note_failure(self, failure: ItemFailure) -> None:
        """Take note of an image that failed, after its line is in the checkpoint."""

    def flush(self) -> None:
        """Send an incomplete batch."""

    def finalise(self) -> None:
        """Complete the output, after the last image."""
        self._checkpoint.assemble(self._output_format)


@dataclass(frozen=True)
class TaskFormat:
    """Predictions for tasks that are in Label Studio: a record for each image, and no files."""

    name: ClassVar[str] = "project"
    image_tags: Sequence[ImageTag]

    def encode(self, image: ItemPrediction) -> EncodedItem:
        """Encode the predictions of an image."""
        predictions = encode_predictions(image, self.image_tags)
        return EncodedItem({}, {"predictions": [prediction.as_json() for prediction in predictions]})

    def assemble(self, records: Iterable[Mapping[str, Any]], output_dir: Path) -> None:
        """Do nothing: the predictions are in Label Studio."""


class LabelStudioSink(Sink):
    """Adds predictions to a project of Label Studio, all of a task in one request, then saves them in the checkpoint.

    Label Studio is asked which versions a task has: tasks without the default one, the last of the `versions`, are
    predicted again, and none is added twice. With `replacing`, walkcut's predictions of other versions are deleted at
    the end from tasks that have the default one and were neither annotated nor skipped; the version chosen in the
    project's settings is kept.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        client: LabelStudioClient,
        project_id: str,
        project: Project,
        versions: Sequence[str],
        *,
        replacing: bool = False,
    ) -> None:
        super().__init__(checkpoint, TaskFormat(project.image_tags))
        self._client, self._project_id = client, project_id
        self._image_tags, self._versions, self._replacing = project.image_tags, versions, replacing
        self._incomplete: dict[int, dict[str, ItemResult]] = {}  # tasks some of whose images are missing, by id
        self._results: list[ItemResult] = []  # of the batch, as are the two below
        self._predictions: list[tuple[int, Mapping[str, Any]]] = []
        self._bytes = 0
        self._unconfirmed = list(checkpoint.announced())  # by earlier runs, which were killed at the request

    def recover(self) -> None:
        """Save the images that an earlier run had announced, and whose predictions Label Studio has."""
        self._unconfirmed = list(filter(self._is_unsaved, self._unconfirmed))
        task_ids = {result.item.task_id or 0 for result in self._unconfirmed}
        existing = self._client.versions(self._project_id, task_ids) if task_ids else {}
        for result in self._unconfirmed:
            if self._versions[-1] in existing.get(result.item.task_id or 0, ()):
                self._checkpoint.save(result)

    def _is_unsaved(self, result: ItemResult) -> bool:
        return not self._checkpoint.is_done(result.item.key)

    def is_done(self, key: str) -> bool:
        """Return whether an image has failed; Label Studio tells which are done."""
        return self._checkpoint.has_failed(key)

    def save(self, result: ItemResult) -> None:
        """Add an image's task to the batch when no image of the task is missing."""
        task_id = result.item.task_id or 0
        self._incomplete.setdefault(task_id, {})[result.item.key] = result
        self._add_if_complete(task_id)

    def note_failure(self, failure: ItemFailure) -> None:
        """Add the failed image's task to the batch, with its other images, if none of them is missing."""
        self._add_if_complete(task_of_key(failure.key))

    def _add_if_complete(self, task_id: int) -> None:
        """Add a task to the batch if each of its images is there or has failed."""
        by_key = self._incomplete.get(task_id)
        if not by_key:
            return
        task = Task(task_id, next(iter(by_key.values())).item.data)
        keys = task_keys(task, self._image_tags)
        if any(key not in by_key and not self._checkpoint.has_failed(key) for key in keys):
            return
        del self._incomplete[task_id]
        images = [by_key[key] for key in keys if key in by_key]
        predictions = merge_predictions([image.record["predictions"] for image in images])
        size = len(json.dumps(predictions))
        if len(self._predictions) + len(predictions) > _MAX_PREDICTIONS or self._bytes + size > _MAX_BYTES:
            self.flush()
        self._results += images
        self._predictions += [(task_id, prediction) for prediction in predictions]
        self._bytes += size

    def flush(self) -> None:
        """Send the batch, with retries while Label Studio is unavailable, and save its images in the checkpoint.

        They are announced first: a run that is killed in between learns from Label Studio which of them it has.
        """
        predictions = self._predictions
        results = [replace(result, record={"task": result.item.task_id}) for result in self._results]
        self._predictions, self._results, self._bytes = [], [], 0
        retrying = Retrying(
            retry=retry_if_exception_type(LabelStudioError),
            wait=wait_chain(*map(wait_fixed, _RETRY_WAITS_S)),
            stop=stop_after_attempt(_MAX_ATTEMPTS),
            before_sleep=_log_retry,
            reraise=True,
        )
        self._checkpoint.announce([*self._unconfirmed, *results])
        existing_tasks = retrying(self._send, predictions) if predictions else set()
        for result in results:
            if result.item.task_id not in existing_tasks:
                self._checkpoint.skip(Skipped(f"task {result.item.task_id}", "deleted in Label Studio meanwhile"))
            elif self._is_unsaved(result):
                self._checkpoint.save(result)

    def _send(self, predictions: Sequence[tuple[int, Mapping[str, Any]]]) -> set[int]:
        """Send the predictions that their tasks lack; return the ids of the tasks that exist."""
        # An earlier attempt may have succeeded without a response, and the backend may have predicted since.
        existing = self._client.versions(self._project_id, {task_id for task_id, _ in predictions})
        new = [
            {"task": task_id, **prediction}
            for task_id, prediction in predictions
            if task_id in existing and prediction["model_version"] not in existing[task_id]
        ]
        if new:
            self._client.add_predictions(self._project_id, new)
        return set(existing)

    def finalise(self) -> None:
        """Send the last batch, and delete the predictions that the new ones replace."""
        self.flush()
        self.recover()  # once more: a request of a killed run may have been answered late
        if not self._replacing:
            return
        deleted, kept = 0, {*self._versions, self._client.chosen_version(self._project_id)}
        for task, versions in self._client.tasks_neither_annotated_nor_skipped(self._project_id):
            if self._versions[-1] in versions and any(map(is_model_version, versions - kept)):
                deleted += self._delete_replaced(task["id"], kept)
        log.info("%d predictions of earlier versions deleted", deleted)

    def _delete_replaced(self, task_id: int, kept: set[str]) -> int:
        """Delete the predictions of a task that new ones replace; return how many."""
        predictions = self._client.predictions(task_id)
        if not any(self._client.tasks_neither_annotated_nor_skipped(self._project_id, [task_id])):
            return 0  # it was annotated in the meantime
        replaced_ids = [
            id_ for id_, version in predictions.items() if is_model_version(version) and version not in kept
        ]
        for prediction_id in replaced_ids:
            self._client.delete_prediction(prediction_id)
        return len(replaced_ids)


def _log_retry(state: RetryCallState) -> None:
    if state.outcome is not None:
        log.warning("%s; retried in %d s", state.outcome.exception(), state.upcoming_sleep)


def merge_predictions(images: Sequence[Sequence[Mapping[str, Any]]]) -> list[Mapping[str, Any]]:
    """Return the predictions of a task, without duplicates, from those of its images: all regions of a version."""
    merged = [
        Prediction([region for part in parts for region in part["result"]], parts[0]["model_version"])
        for parts in zip(*images, strict=True)
    ]
    return [prediction.as_json() for prediction in without_duplicates(merged)]
