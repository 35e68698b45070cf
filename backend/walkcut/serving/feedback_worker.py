"""The worker that learns from webhook events and from what Label Studio holds."""

import logging
import threading
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from walkcut.errors import BUG, BusyError, ImageFetchError, LabelStudioError, StoreError, WalkcutError
from walkcut.inference.predictor import Predictor
from walkcut.inference.project import Project
from walkcut.labelstudio.client import LabelStudioClient
from walkcut.labelstudio.config import semantic_labels
from walkcut.labelstudio.tasks import Submission, parse_ids, parse_timestamp, read_submission
from walkcut.serving.annotation_processor import AnnotationProcessor
from walkcut.serving.profile_cache import ProfileCache
from walkcut.serving.retries import MAX_ATTEMPTS, RetrySchedule
from walkcut.storage import Event, ProjectStore

log = logging.getLogger(__name__)

_BATCH = 16  # events between two looks at whether a sync is due
_RESYNC_S = 60.0  # after an incomplete sync, or an event that could not be stored
_IDLE_S = 1.0
_MAX_PAUSE_S = 60.0  # while the database is unavailable


@dataclass(frozen=True)
class SyncResult:
    """The numbers of annotations that a sync with Label Studio learned from, deleted the feedback of, and failed on."""

    learned: int = 0
    forgotten: int = 0
    failed: int = 0


class FeedbackWorker:
    """Learns from the events in the store, and from the annotations in Label Studio if there is a `client`.

    Webhooks may be lost or come twice: feedback is saved by annotation and time of change, so that processing one again
    changes nothing. Unless `enabled`, no project learns; otherwise the store holds a switch for each.
    """

    def __init__(
        self,
        predictor: Predictor,
        store: ProjectStore,
        client: LabelStudioClient | None = None,
        *,
        enabled: bool = True,
    ) -> None:
        self._predictor, self._store, self._client, self._enabled = predictor, store, client, enabled
        self._profiles = ProfileCache(store, predictor.segmenter_version)
        self._processor = AnnotationProcessor(predictor, store, client)
        self._retries = RetrySchedule()
        self._sync_requested = threading.Event()
        self._backlog = 0

    @property
    def backlog(self) -> int:
        """The number of pending events when they were last counted."""
        return self._backlog

    def project(self, project_id: str, label_config: str, extra_params: Mapping[str, Any]) -> Project:
        """Return a project, with its profile if it learns. Raises as `Predictor.project_from_config`."""
        project = self._predictor.project_from_config(label_config, extra_params)
        if not self.is_enabled(project_id):
            return project
        return project.with_profile(self._profiles.get(project_id, semantic_labels(project.controls)))

    def is_enabled(self, project_id: str) -> bool:
        """Return whether a project learns."""
        return self._enabled and self._store.learning(project_id)

    def request_sync(self) -> None:
        """Have the worker sync, if it syncs at all, within two minutes of the database's return: an event was lost."""
        self._sync_requested.set()

    def run(self, stop: threading.Event, sync_interval: float) -> None:
        """Learn until `stop` is set, and sync at once and every `sync_interval` seconds; with 0, never."""
        schedule, pause = _SyncSchedule(0.0 if self._client is None else sync_interval), _IDLE_S
        while not stop.is_set():
            try:
                self._sync_if_due(schedule)
                if not self.process_pending():
                    stop.wait(_IDLE_S)
                if pause > _IDLE_S:
                    log.info("learning has resumed")
                pause = _IDLE_S
            except Exception as error:
                pause = min(2 * pause, _MAX_PAUSE_S)
                bug = None if isinstance(error, StoreError) else error
                log.warning("learning is interrupted, and resumes in %.0f s: %s", pause, error, exc_info=bug)
                stop.wait(pause)

    def _sync_if_due(self, schedule: "_SyncSchedule") -> None:
        if self._sync_requested.is_set():
            self._sync_requested.clear()
            schedule.advance()
        if schedule.is_due():
            schedule.record(complete=self.sync_all())

    def process_pending(self) -> int:
        """Process the oldest pending events that are due, and return how many are done. Raises `StoreError`."""
        pending = self._store.pending_ids()
        self._backlog = len(pending)
        due = [event_id for event_id in pending if self._retries.is_due(event_id)]
        return sum(self._try_process(event_id, self._store.event(event_id)) for event_id in due[:_BATCH])

    def _try_process(self, event_id: int, event: Event) -> bool:
        """Process an event; return whether it is done, not to be tried again."""
        name = f"{event.action} in project {event.project_id}"
        try:
            self.process(event)
        except StoreError:
            raise
        except (ImageFetchError, LabelStudioError, BusyError) as error:
            attempts = self._retries.postpone(event_id)
            if attempts == 1:
                log.warning("%s not learned from; retrying for a day: %s", name, error)
            if attempts < MAX_ATTEMPTS:
                return False
            log.warning("%s not learned from: %s", name, error)
        except WalkcutError as error:
            log.warning("%s not learned from: %s", name, error)
        except Exception:
            log.exception("%s not learned from: %s", name, BUG)
        self._mark_done(event_id)
        return True

    def _mark_done(self, event_id: int) -> None:
        self._store.mark_done(event_id)
        self._retries.discard(event_id)

    def process(self, event: Event) -> None:
        """Learn from one event. Raises `WalkcutError` if the event or its image cannot be used."""
        if not self.is_enabled(event.project_id):
            return
        match event.action:
            case "ANNOTATION_CREATED" | "ANNOTATION_UPDATED":
                submission = read_submission(event.body.get("task"), event.body.get("annotation"))
                self._learn(event.project_id, submission, _event_label_config(event))
            case "ANNOTATIONS_DELETED":
                self._delete_annotations(event.project_id, parse_ids(event.body.get("annotations")))
            case "TASKS_DELETED":
                self._delete_tasks(event.project_id, parse_ids(event.body.get("tasks")))

    def _learn(self, project_id: str, submission: Submission, label_config: str = "") -> None:
        """Process a submission; a skipped task has no feedback."""
        if submission.skipped:
            self._delete_annotations(project_id, {submission.annotation_id})
        else:
            self._processor.process(project_id, submission, label_config)

    def _delete_annotations(self, project_id: str, annotation_ids: Collection[int]) -> None:
        self._discard_pending(project_id, "annotation", annotation_ids)
        self._store.delete_feedback(project_id, annotation_ids)

    def _delete_tasks(self, project_id: str, task_ids: Collection[int]) -> None:
        self._discard_pending(project_id, "task", task_ids)
        processed = self._store.processed(project_id)
        self._store.delete_feedback(project_id, {row.annotation_id for row in processed if row.task_id in task_ids})

    def _discard_pending(self, project_id: str, kind: str, deleted_ids: Collection[int]) -> None:
        """Mark waiting events of deleted annotations or tasks as done, so that they do not bring feedback back."""
        for event_id in self._retries.event_ids():
            event = self._store.event(event_id)
            document = event.body.get(kind)
            if event.project_id == project_id and isinstance(document, Mapping) and document.get("id") in deleted_ids:
                self._mark_done(event_id)

    def sync_all(self) -> bool:
        """Sync all projects that learn; return whether none failed. Raises `StoreError`."""
        complete = True
        for project_id in self._store.projects():
            try:
                if self.is_enabled(project_id):
                    log.info("project %s: %s", project_id, self.sync(project_id))
            except StoreError:
                raise
            except WalkcutError as error:
                complete = False
                log.warning("project %s could not be synced with Label Studio: %s", project_id, error)
        return complete

    def sync(self, project_id: str) -> SyncResult:
        """Learn from annotations whose webhooks were lost, and delete the feedback of those that no longer exist.

        Raises `LabelStudioError` if Label Studio is unavailable, and `BusyError` if nothing can be learned now.
        """
        if self._client is None:
            raise LabelStudioError("no access to Label Studio: set LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY")
        known = {row.annotation_id: row.updated for row in self._store.processed(project_id)}
        present, learned, failed = set(), 0, 0
        for task, annotation in self._client.annotations(project_id):
            submission = read_submission(task, annotation)
            present.add(submission.annotation_id)
            if known.get(submission.annotation_id) != parse_timestamp(submission.updated_at):
                if self._try_learn(project_id, submission):
                    learned += 1
                else:
                    failed += 1
        deleted = known.keys() - present
        self._store.delete_feedback(project_id, deleted)
        return SyncResult(learned, len(deleted), failed)

    def _try_learn(self, project_id: str, submission: Submission) -> bool:
        """Process a submission; return whether it could be used. Raises `BusyError` and `LabelStudioError`."""
        try:
            self._learn(project_id, submission)
        except (BusyError, LabelStudioError):
            raise
        except WalkcutError as error:
            log.warning("annotation %d not learned from: %s", submission.annotation_id, error)
            return False
        return True


class _SyncSchedule:
    """Time of the next sync: at once, then every `interval` seconds; with 0, never."""

    def __init__(self, interval: float) -> None:
        self._interval, self._next = interval, time.monotonic()

    def is_due(self) -> bool:
        return self._interval > 0 and time.monotonic() >= self._next

    def advance(self) -> None:
        """Have the next sync a minute from now, unless it is due earlier."""
        self._next = min(self._next, time.monotonic() + _RESYNC_S)

    def record(self, *, complete: bool) -> None:
        """Note that a sync has ended; an incomplete one is repeated after a minute."""
        self._next = time.monotonic() + (self._interval if complete else min(self._interval, _RESYNC_S))


def _event_label_config(event: Event) -> str:
    """Return the labelling config in an event's document of the project; empty if there is none."""
    project = event.body.get("project")
    config = project.get("label_config") if isinstance(project, dict) else None
    return config if isinstance(config, str) else ""
