"""The worker that learns from the annotations in the store, and fetches those whose webhooks were lost."""

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from walkcut.errors import (
    BusyError,
    ImageFetchError,
    LabelStudioError,
    RequestError,
    StoreError,
    WalkcutError,
    problem_text,
)
from walkcut.inference.predictor import Predictor
from walkcut.labelstudio.client import LabelStudioClient
from walkcut.labelstudio.tasks import parse_id, parse_timestamp
from walkcut.serving.annotation_processor import AnnotationProcessor
from walkcut.serving.webhooks import save_annotation
from walkcut.storage import Attempt, Backlog, ProjectStore
from walkcut.telemetry.failures import record_failure

log = logging.getLogger(__name__)

_BATCH = 16  # annotations between two looks at whether a sync is due
_RESYNC_S = 60.0  # after a failed sync of a project, or an event that could not be stored
_IDLE_S = 1.0
_MAX_PAUSE_S = 60.0  # while the database is unavailable
_DAY_S = 86400.0
_MAX_RETRY_S = 600.0
_FREQUENT_ATTEMPTS = 150  # about a day
_TRANSIENT = (ImageFetchError, LabelStudioError, BusyError)


@dataclass(frozen=True)
class SyncResult:
    """The numbers of annotations that a sync with Label Studio learned from, deleted the feedback of, and failed on."""

    learned: int = 0
    forgotten: int = 0
    failed: int = 0


class FeedbackWorker:
    """Learns from the annotations in the store, and fetches missing ones from Label Studio if there is a `client`.

    An annotation that cannot be learned from is set aside with its reason, and tried again: after 2, 4, 8 … 600 s for a
    day where an image, Label Studio or the model is unavailable, else, and after that, once a day; at once when it is
    changed. It never keeps others from being learned from. After a change of the segmenter all annotations are learned
    from again.
    """

    def __init__(self, predictor: Predictor, store: ProjectStore, client: LabelStudioClient | None = None) -> None:
        self._store, self._client = store, client
        self._segmenter_version = predictor.tree_service.version
        self._processor = AnnotationProcessor(predictor, store, client)
        self._sync_requested = threading.Event()
        self._unsynced: list[str] = []  # projects whose last sync failed
        self._next_retry = 0.0  # of these
        self.backlog = Backlog()  # when it was last counted

    def request_sync(self) -> None:
        """Have the worker sync, if it syncs at all, within two minutes of the database's return: an event was lost."""
        self._sync_requested.set()

    def run(self, stop: threading.Event, sync_interval: float) -> None:
        """Learn until `stop` is set, and sync at once and every `sync_interval` seconds; with 0, never."""
        never, is_current = self._client is None or sync_interval == 0, False
        next_sync, pause = time.monotonic(), _IDLE_S
        while not stop.is_set():
            try:
                is_current = is_current or self._relearn()
                next_sync = next_sync if never else self._sync_if_due(next_sync, sync_interval)
                if not self.learn_due():
                    stop.wait(_IDLE_S)
                if pause > _IDLE_S:
                    log.info("learning has resumed")
                pause = _IDLE_S
            except Exception as error:
                pause = min(2 * pause, _MAX_PAUSE_S)
                bug = None if isinstance(error, StoreError) else error
                log.warning("learning is interrupted, and resumes in %.0f s: %s", pause, error, exc_info=bug)
                stop.wait(pause)

    def learn_due(self) -> int:
        """Try the annotations that have been due longest, and return how many were tried. Raises `StoreError`."""
        now = time.time()
        tried = sum(self._learn_next(now) is not None for _ in range(_BATCH))
        previous, self.backlog = self.backlog, self._store.annotations.backlog()
        if previous.pending and not self.backlog.pending:
            log.info("nothing waits to be learned from, %d annotations are set aside", self.backlog.set_aside)
        return tried

    def sync(self, project_id: str) -> SyncResult:
        """Fetch what Label Studio holds, and learn from all annotations of a project that wait, those set aside too.

        Feedback of annotations that no longer exist is deleted. Raises `LabelStudioError` if Label Studio is
        unavailable, and `StoreError`.
        """
        forgotten, unreadable = self._fetch(project_id)
        self._store.annotations.retry(project_id)
        now, outcomes = time.time(), list[bool]()
        while (outcome := self._learn_next(now, project_id)) is not None:
            outcomes.append(outcome)
        return SyncResult(sum(outcomes), forgotten, unreadable + outcomes.count(False))

    def _relearn(self) -> bool:
        """Have what another segmenter's feedback is from learned from again, once in a process; return true."""
        if count := self._store.annotations.relearn(self._segmenter_version):
            log.info("%d annotations are learned from again: their feedback is from another segmenter", count)
        return True

    def _sync_if_due(self, next_sync: float, interval: float) -> float:
        """Sync if it is time, and return the time of the next sync; a failed one is repeated after a minute.

        After a request all projects are synced within a minute.
        """
        now = time.monotonic()
        if self._sync_requested.is_set():
            self._sync_requested.clear()
            next_sync = min(next_sync, now + _RESYNC_S)
        is_full = now >= next_sync
        if not is_full and not (self._unsynced and now >= self._next_retry):
            return next_sync
        projects = self._store.projects() if is_full else self._unsynced
        self._unsynced = [project_id for project_id in projects if not self._try_fetch(project_id)]
        now = time.monotonic()
        self._next_retry = now + _RESYNC_S
        return now + interval if is_full else next_sync

    def _try_fetch(self, project_id: str) -> bool:
        """Fetch a project's annotations if it learns; return whether that did not fail. Raises `StoreError`."""
        try:
            if self._store.learning(project_id):
                log.info("project %s: %d forgotten, %d unreadable", project_id, *self._fetch(project_id))
        except StoreError:
            raise
        except Exception as error:
            bug = None if isinstance(error, WalkcutError) else error
            log.warning("project %s could not be synced with Label Studio: %s", project_id, error, exc_info=bug)
            return False
        return True

    def _fetch(self, project_id: str) -> tuple[int, int]:
        """Save all changed annotations that Label Studio holds, and delete the others.

        Returns the numbers of deleted and of unreadable ones.
        """
        if self._client is None:
            raise LabelStudioError("no access to Label Studio: set LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY")
        known, present, unreadable = self._store.annotations.known(project_id), set(), 0
        for task, annotation in self._client.annotations(project_id):
            try:
                annotation_id = parse_id(annotation)
            except RequestError as error:
                unreadable += 1
                log.warning("an annotation in project %s cannot be read: %s", project_id, error)
                continue
            present.add(annotation_id)
            if not _is_state(annotation, known.get(annotation_id)):
                replace = self._store.annotations.replace
                unreadable += not save_annotation(self._store, project_id, task, annotation, replace)
        deleted = known.keys() - present
        self._store.annotations.delete(project_id, deleted)
        return len(deleted), unreadable

    def _learn_next(self, now: float, project_id: str = "") -> bool | None:
        """Learn from the annotation that has been due longest; return whether it could be used, `None` without one."""
        attempt = self._store.annotations.next_attempt(now, _retry_pause, project_id)
        if attempt is None:
            return None
        try:
            self._processor.process(attempt)
        except StoreError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the next annotation is learned from
            self._set_aside(attempt, error)
            return False
        self._store.annotations.finish(attempt.row)
        return True

    def _set_aside(self, attempt: Attempt, error: Exception) -> None:
        pause = _retry_pause(attempt.number) if isinstance(error, _TRANSIENT) else _DAY_S
        self._store.annotations.postpone(attempt.row, time.time() + pause, problem_text(error))
        record_failure(error)
        if attempt.number == 1:
            name = f"annotation {attempt.row.annotation_id} in project {attempt.row.project_id}"
            bug = None if isinstance(error, WalkcutError) else error
            log.warning("%s is set aside, and tried again in %.0f s: %s", name, pause, error, exc_info=bug)


def _is_state(annotation: Mapping[str, Any], updated: datetime | None) -> bool:
    """Return whether an annotation's document is that of the state from this time."""
    try:
        return parse_timestamp(annotation.get("updated_at")) == updated
    except RequestError:
        return False


def _retry_pause(attempt: int) -> float:
    """Return the seconds until the next attempt, after one that failed for a reason that may pass."""
    return min(2.0**attempt, _MAX_RETRY_S) if attempt < _FREQUENT_ATTEMPTS else _DAY_S
