"""The worker that learns from the annotations in the store."""

import logging
import threading
import time
from dataclasses import dataclass

from walkcut.errors import BusyError, ImageFetchError, LabelStudioError, StoreError, WalkcutError, problem_text
from walkcut.inference.predictor import Predictor
from walkcut.labelstudio.client import LabelStudioClient
from walkcut.serving.annotation_processor import AnnotationProcessor
from walkcut.serving.synchronizer import Synchronizer
from walkcut.storage import Attempt, Backlog, ProjectStore
from walkcut.telemetry.failures import record_failure

log = logging.getLogger(__name__)

_BATCH = 16  # annotations between two counts of the backlog
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
    """Learns from the annotations in the store; its `synchronizer` fetches missing ones, in a thread of its own.

    An annotation that cannot be learned from is set aside with its reason, and tried again: after 2, 4, 8 … 600 s for a
    day where an image, Label Studio or the model is unavailable, else, and after that, once a day; at once when it is
    changed. It never keeps others from being learned from. After a change of the segmenter all annotations are learned
    from again.
    """

    def __init__(self, predictor: Predictor, store: ProjectStore, client: LabelStudioClient | None = None) -> None:
        self._store = store
        self._segmenter_version = predictor.tree_service.version
        self._processor = AnnotationProcessor(predictor, store, client)
        self.synchronizer = Synchronizer(store, client)
        self.backlog = Backlog()  # when it was last counted

    def run(self, stop: threading.Event) -> None:
        """Learn until `stop` is set."""
        is_current, pause = False, _IDLE_S
        while not stop.is_set():
            try:
                is_current = is_current or self._relearn()
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
        fetched = self.synchronizer.fetch(project_id)
        self._store.annotations.retry(project_id)
        now, outcomes = time.time(), list[bool]()
        while (outcome := self._learn_next(now, project_id)) is not None:
            outcomes.append(outcome)
        return SyncResult(sum(outcomes), fetched.deleted, fetched.unreadable + outcomes.count(False))

    def _relearn(self) -> bool:
        """Have what another segmenter's feedback is from learned from again, once in a process; return true."""
        if count := self._store.annotations.relearn(self._segmenter_version):
            log.info("%d annotations are learned from again: their feedback is from another segmenter", count)
        return True

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


def _retry_pause(attempt: int) -> float:
    """Return the seconds until the next attempt, after one that failed for a reason that may pass."""
    return min(2.0**attempt, _MAX_RETRY_S) if attempt < _FREQUENT_ATTEMPTS else _DAY_S
