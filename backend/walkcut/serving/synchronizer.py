"""Fetches the annotations whose webhooks were lost from Label Studio, and forgets those that no longer exist."""

import logging
import math
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from walkcut.errors import LabelStudioError, RequestError, StoreError, WalkcutError
from walkcut.labelstudio.client import LabelStudioClient
from walkcut.labelstudio.tasks import parse_id, parse_timestamp
from walkcut.serving.webhooks import is_skipped, save_annotation
from walkcut.storage import ProjectStore

log = logging.getLogger(__name__)

_IDLE_S = 1.0
_RESYNC_S = 60.0  # after a request, an unavailable database, or a first failure
_MAX_DOUBLINGS = 10
_FORGET_REMEDY = "if the project was deleted there, `walkcut project forget %s` deletes what was learned from it"


@dataclass(frozen=True)
class FetchResult:
    """The numbers of annotations that a fetch deleted, and that could not be read."""

    deleted: int = 0
    unreadable: int = 0


@dataclass(frozen=True)
class _Schedule:
    """The time of a project's next sync, by the monotonic clock, and how many failed since the last good one."""

    time: float = -math.inf
    failures: int = 0


class Synchronizer:
    """Makes the store's annotations those of Label Studio, if there is a `client`.

    A project that is new to the database is fetched at once: the database may have been lost.
    A project that does not learn gets no new annotations, but those deleted or skipped in Label Studio are deleted.
    """

    def __init__(self, store: ProjectStore, client: LabelStudioClient | None) -> None:
        self._store, self._client = store, client
        self._requested = threading.Event()

    def request(self) -> None:
        """Have `run` sync within a minute: an event was lost."""
        self._requested.set()

    def run(self, stop: threading.Event, interval: float, *, learning: bool) -> None:
        """Sync until `stop` is set, at once and every `interval` seconds, and new projects at once; with 0, never.

        The sync of a project that fails is repeated after a minute, and then after twice the time, up to `interval`.
        """
        schedule: dict[str, _Schedule] = {}
        while self._client is not None and interval > 0 and not stop.is_set():
            soon = time.monotonic() + _RESYNC_S
            if self._requested.is_set():
                self._requested.clear()
                schedule = {name: _Schedule(min(planned.time, soon)) for name, planned in schedule.items()}
            try:
                schedule = {name: schedule.get(name, _Schedule()) for name in self._store.projects()}
                for name in [name for name, planned in schedule.items() if time.monotonic() >= planned.time]:
                    failures = 0 if self._try_fetch(name, stop, learning=learning) else schedule[name].failures + 1
                    schedule[name] = _Schedule(time.monotonic() + _pause(failures, interval), failures)
            except StoreError as error:
                log.warning("no sync with Label Studio while the database is unavailable: %s", error)
                stop.wait(_RESYNC_S)
            stop.wait(_IDLE_S)

    def fetch(self, project_id: str, *, learning: bool = True, stop: threading.Event | None = None) -> FetchResult:
        """Save all changed annotations that Label Studio holds unless not `learning`, and delete all others.

        Nothing is deleted if `stop` is set meanwhile, or if the id of an annotation cannot be read. Raises
        `LabelStudioError`, `StoreError`, and `RequestError` for another Label Studio than the one that the project is
        known from.
        """
        if self._client is None:
            raise LabelStudioError("no access to Label Studio: set LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY")
        known, present, unreadable, is_complete = self._store.annotations.known(project_id), set(), 0, True
        if not (learning or known):
            return FetchResult()
        self._store.claim(project_id, self._client.created(project_id))
        for task, annotation in self._client.annotations(project_id):
            if stop is not None and stop.is_set():
                return FetchResult(unreadable=unreadable)
            if is_skipped(annotation):
                continue
            try:
                annotation_id = parse_id(annotation)
            except RequestError as error:
                unreadable, is_complete = unreadable + 1, False
                log.warning("an annotation in project %s cannot be read: %s", project_id, error)
                continue
            present.add(annotation_id)
            if learning and not _is_state(annotation, known.get(annotation_id)):
                replace = self._store.annotations.replace
                unreadable += not save_annotation(self._store, project_id, task, annotation, replace)
        deleted = known.keys() - present if is_complete else set[int]()
        self._store.annotations.delete(project_id, deleted)
        return FetchResult(len(deleted), unreadable)

    def _try_fetch(self, project_id: str, stop: threading.Event, *, learning: bool) -> bool:
        """Fetch a project's annotations; return whether that did not fail. Raises `StoreError`."""
        try:
            learns = learning and self._store.learning(project_id)
            result = self.fetch(project_id, learning=learns, stop=stop)
            log.info("project %s: %d forgotten, %d unreadable", project_id, result.deleted, result.unreadable)
        except StoreError:
            raise
        except Exception as error:
            bug = None if isinstance(error, WalkcutError) else error
            message = f"project %s could not be synced with Label Studio: %s; {_FORGET_REMEDY}"
            log.warning(message, project_id, error, project_id, exc_info=bug)
            return False
        return True


def _pause(failures: int, interval: float) -> float:
    """Return the seconds until the next sync, after so many that failed."""
    return min(interval, _RESYNC_S * 2.0 ** min(failures - 1, _MAX_DOUBLINGS)) if failures else interval


def _is_state(annotation: Mapping[str, Any], updated: datetime | None) -> bool:
    """Return whether an annotation's document is that of the state from this time."""
    try:
        return parse_timestamp(annotation.get("updated_at")) == updated
    except RequestError:
        return False
