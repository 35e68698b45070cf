"""What annotators submit, taken in one by one: lessons for their project, and segments folded by their strokes."""

import logging
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from walkcut.errors import BusyError, ImageFetchError, LabelStudioError, StoreError, WalkcutError
from walkcut.inference.predictor import Predictor
from walkcut.inference.project import Project
from walkcut.labelstudio import (
    BrushControl,
    Region,
    Submission,
    annotated_regions,
    parse_ids,
    parse_timestamp,
    prediction,
    read_submission,
    semantic_labels,
)
from walkcut.labelstudio.client import LabelStudioClient
from walkcut.learning.examples import AnnotationFeedback, extract_feedback
from walkcut.learning.fold import AnnotatedImage, merge_by_annotation
from walkcut.serving.project_cache import ProfileCache
from walkcut.storage import Event, ProjectStore

log = logging.getLogger(__name__)

_BATCH = 16  # events taken in before a look at what else is due
_MOST_ATTEMPTS = 150  # to take in an event whose image cannot be had, in about a day
_LONGEST_WAIT_S = 600.0  # between two of them
_COMPARE_AGAIN_S = 60.0  # after a comparison with Label Studio that failed, or an event that could not be kept
_IDLE_S = 1.0
_LONGEST_PAUSE_S = 60.0  # while the database is away


@dataclass(frozen=True)
class SyncResult:
    """What a comparison with Label Studio led to: annotations learned from, forgotten, and failed."""

    learned: int = 0
    forgotten: int = 0
    failed: int = 0


class FeedbackWorker:
    """Learns from webhook events that the store holds, and from what Label Studio holds, if a `client` is given.

    Webhooks may be lost or come twice; a lesson is kept by its annotation and the time of its change, so that taking
    one in again changes nothing. With `on` false no project learns; else each has its own switch in the store.
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
        self._pending = 0
        self._missed = threading.Event()
        self._attempts: dict[int, tuple[int, float]] = {}  # of events that failed: how many, and when to try again
        self._pending_offers: set[tuple[str, int]] = (
            set()
        )  # annotations whose folded segments Label Studio did not take yet

    @property
    def backlog(self) -> int:
        """How many events were not taken in yet at the last look."""
        return self._pending

    def project(self, number: str, label_config: str, extra_params: Mapping[str, Any]) -> Project:
        """A project as its annotators taught it to be, unless learning is off. Raises as `Predictor.project_from_config`."""
        project = self._predictor.project_from_config(label_config, extra_params)
        if not self.is_enabled(number):
            return project
        return project.with_profile(self._profiles.of(number, semantic_labels(project.controls)))

    def is_enabled(self, number: str) -> bool:
        """Whether a project learns."""
        return self._enabled and self._store.learning(number)

    def request_sync(self) -> None:
        """Compare with Label Studio within a minute, if ever: it may know what the store could not keep."""
        self._missed.set()

    def run(self, stop: threading.Event, every: float) -> None:
        """Learn until told to stop, and compare with Label Studio at once and `every` so many seconds, if ever."""
        compares, compare = self._client is not None and every > 0, time.monotonic()
        pause = _IDLE_S
        while not stop.is_set():
            try:
                if self._missed.is_set():
                    self._missed.clear()
                    compare = min(compare, time.monotonic() + _COMPARE_AGAIN_S)
                if compares and time.monotonic() >= compare:
                    wait = every if self.sync_all() else min(every, _COMPARE_AGAIN_S)
                    compare = time.monotonic() + wait
                if not self.process_pending():
                    stop.wait(_IDLE_S)
                if pause > _IDLE_S:
                    log.info("learning goes on")
                pause = _IDLE_S
            except Exception as error:
                pause = min(2 * pause, _LONGEST_PAUSE_S)
                defect = None if isinstance(error, StoreError) else error
                log.warning("learning was interrupted and goes on in %.0f s: %s", pause, error, exc_info=defect)
                stop.wait(pause)

    def process_pending(self) -> int:
        """Take in the oldest pending events that are due; how many are done with. Raises `StoreError`."""
        now, pending = time.monotonic(), self._store.pending_ids()
        self._pending = len(pending)
        due = [each for each in pending if self._attempts.get(each, (0, now))[1] <= now]
        return sum(self._try_process(number, self._store.event(number)) for number in due[:_BATCH])

    def _try_process(self, number: int, event: Event) -> bool:
        """Take in an event; false where it should be tried again."""
        told = f"{event.action} in project {event.project}"
        try:
            self.process(event)
        except StoreError:
            raise
        except (ImageFetchError, LabelStudioError, BusyError) as error:
            attempts = self._attempts.get(number, (0, 0.0))[0] + 1
            if attempts < _MOST_ATTEMPTS:
                self._attempts[number] = attempts, time.monotonic() + min(2**attempts, _LONGEST_WAIT_S)
                if attempts == 1:
                    log.warning("nothing learned yet from %s, which is tried again for a day: %s", told, error)
                return False
            log.warning("nothing learned from %s: %s", told, error)
        except WalkcutError as error:
            log.warning("nothing learned from %s: %s", told, error)
        except Exception:
            log.exception("nothing learned from %s: a defect of walkcut, please report it", told)
        self._mark_done(number)
        return True

    def _mark_done(self, number: int) -> None:
        self._store.mark_done(number)
        self._attempts.pop(number, None)

    def process(self, event: Event) -> None:
        """Learn from one event. Raises `WalkcutError` where it, or its image, is of no use."""
        if not self.is_enabled(event.project):
            return
        match event.action:
            case "ANNOTATION_CREATED" | "ANNOTATION_UPDATED":
                submission = read_submission(event.body.get("task"), event.body.get("annotation"))
                self._learn_from(event.project, submission, _event_label_config(event))
            case "ANNOTATIONS_DELETED":
                gone = parse_ids(event.body.get("annotations"))
                self._discard_pending(event.project, "annotation", gone)
                self._store.delete_feedback(event.project, gone)
            case "TASKS_DELETED":
                gone = parse_ids(event.body.get("tasks"))
                self._discard_pending(event.project, "task", gone)
                processed = self._store.processed(event.project)
                self._store.delete_feedback(event.project, {each.annotation for each in processed if each.task in gone})

    def _discard_pending(self, project: str, kind: str, gone: Collection[int]) -> None:
        """Be done with the events that wait and would bring back what is gone: annotations or tasks by their ids."""
        for number in tuple(self._attempts):
            event = self._store.event(number)
            document = event.body.get(kind)
            if event.project == project and isinstance(document, Mapping) and document.get("id") in gone:
                self._mark_done(number)

    def sync_all(self) -> bool:
        """Compare all projects that learn with Label Studio; whether all could be: one that could not is logged.

        Raises `StoreError`.
        """
        complete = True
        for number in self._store.projects():
            try:
                if self.is_enabled(number):
                    log.info("project %s: %s", number, self.sync(number))
            except StoreError:
                raise
            except WalkcutError as error:
                complete = False
                log.warning("project %s was not compared with Label Studio yet: %s", number, error)
        return complete

    def sync(self, number: str) -> SyncResult:
        """Learn from annotations that webhooks did not tell of, and forget those that are gone.

        Raises `LabelStudioError` where Label Studio cannot be asked, and `BusyError` where nothing can be learned now.
        """
        if self._client is None:
            raise LabelStudioError("Label Studio cannot be asked: set LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY")
        known = {each.annotation: each.updated for each in self._store.processed(number)}
        seen, learned, failed = set(), 0, 0
        for task, annotation in self._client.annotations(number):
            submission = read_submission(task, annotation)
            seen.add(submission.annotation)
            if known.get(submission.annotation) != parse_timestamp(submission.updated_at):
                try:
                    self._learn_from(number, submission)
                    learned += 1
                except (BusyError, LabelStudioError):
                    raise
                except WalkcutError as error:
                    failed += 1
                    log.warning("nothing learned from annotation %d: %s", submission.annotation, error)
        gone = known.keys() - seen
        self._store.delete_feedback(number, gone)
        return SyncResult(learned, len(gone), failed)

    def _learn_from(self, number: str, submission: Submission, config: str = "") -> None:
        """Keep what an annotation teaches, and fold segments by it the first time; a skipped task teaches nothing."""
        if submission.skipped:
            self._discard_pending(number, "annotation", {submission.annotation})
            self._store.delete_feedback(number, {submission.annotation})
            return
        config = (
            config or self._store.label_config(number) or (self._client.label_config(number) if self._client else "")
        )
        project = self._predictor.project_from_config(config, self._store.extra_params(number))
        drawings = [self._annotated_image(submission, control) for control in project.controls]
        if not self._store.has_feedback(number, submission.annotation):
            self._pending_offers.add((number, submission.annotation))
        self._store.save_feedback(self._annotation_feedback(number, submission, drawings))
        self._offer_folded(number, submission, merge_by_annotation(drawings, project.options.min_area))

    def _offer_folded(
        self, number: str, submission: Submission, regions: Sequence[tuple[BrushControl, list[Region]]]
    ) -> None:
        """Put folded segments into Label Studio, once for each annotation."""
        key, task = (number, submission.annotation), submission.task
        if key in self._pending_offers and self._client is not None and regions:
            version = f"folded-walkcut-{submission.annotation}"
            # An earlier attempt may have come through, though its answer was lost.
            if version not in self._client.predictions(task.id).values():
                found = prediction(task, regions, version).as_json()
                self._client.add_predictions(number, [{"task": task.id, **found}])
        self._pending_offers.discard(key)

    def _annotated_image(self, submission: Submission, control: BrushControl) -> AnnotatedImage:
        task = submission.task
        tree = self._predictor.get_tree(task.reference(control), task.id)
        return AnnotatedImage(control, tree, annotated_regions(submission.result, control, tree.size))

    def _annotation_feedback(
        self, number: str, submission: Submission, drawings: Sequence[AnnotatedImage]
    ) -> AnnotationFeedback:
        """What an annotation teaches by all images of its task."""
        lessons = [
            extract_feedback(
                drawing.tree,
                [(region.label, region.mask) for region in drawing.regions],
                project=number,
                annotation=submission.annotation,
                task=submission.task.id,
                updated_at=submission.updated_at,
                segmenter=self._predictor.segmenter_version,
                generic_labels=drawing.control.generic_labels,
                source_model_version=self._source_model_version(submission),
            )
            for drawing in drawings
        ]
        fits = [lesson.covering_scores for lesson in lessons if lesson.covering_scores]
        means = {name: float(np.mean([fit[name] for fit in fits])) for name in (fits[0] if fits else ())}
        examples = tuple(example for lesson in lessons for example in lesson.examples)
        return replace(lessons[0], covering_scores=means, examples=examples)

    def _source_model_version(self, submission: Submission) -> str:
        """The model version of the prediction that the annotator started from, as far as it can be known."""
        if self._client is None or submission.parent_prediction is None:
            return ""
        try:
            return self._client.prediction_version(submission.parent_prediction)
        except LabelStudioError as error:
            log.info("which prediction was taken is not known: %s", error)
            return ""


def _event_label_config(event: Event) -> str:
    """The labelling config in an event's document of the project; empty where there is none."""
    project = event.body.get("project")
    config = project.get("label_config") if isinstance(project, dict) else None
    return config if isinstance(config, str) else ""
