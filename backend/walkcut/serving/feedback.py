"""What annotators submit, taken in one by one: lessons for their project, and segments folded by their strokes."""

import logging
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from walkcut.errors import BusyError, ImageFetchError, StoreError, StudioError, WalkcutError
from walkcut.inference.predictor import Annotator, Project
from walkcut.labelstudio import (
    BrushTarget,
    Region,
    Submission,
    annotated_regions,
    named_labels,
    prediction,
    read_moment,
    read_numbers,
    read_submission,
)
from walkcut.labelstudio.client import Studio
from walkcut.learning.examples import Lesson, teach
from walkcut.learning.fold import Drawing, folded
from walkcut.serving.project_cache import Knowledge
from walkcut.storage import Event, ProjectStore

log = logging.getLogger(__name__)

_BATCH = 16  # events taken in before a look at what else is due
_MOST_ATTEMPTS = 150  # to take in an event whose picture cannot be had, in about a day
_LONGEST_WAIT_S = 600.0  # between two of them
_COMPARE_AGAIN_S = 60.0  # after a comparison with Label Studio that failed, or an event that could not be kept
_IDLE_S = 1.0
_LONGEST_PAUSE_S = 60.0  # while the database is away


@dataclass(frozen=True)
class Synchronised:
    """What a comparison with Label Studio led to: annotations learned from, forgotten, and failed."""

    learned: int = 0
    forgotten: int = 0
    failed: int = 0


class Learner:
    """Learns from webhook events that the store holds, and from what Label Studio holds, if a `studio` is given.

    Webhooks may be lost or come twice; a lesson is kept by its annotation and the time of its change, so that taking
    one in again changes nothing. With `on` false no project learns; else each has its own switch in the store.
    """

    def __init__(
        self, annotator: Annotator, store: ProjectStore, studio: Studio | None = None, *, on: bool = True
    ) -> None:
        self._annotator, self._store, self._studio, self._on = annotator, store, studio, on
        self._knowledge = Knowledge(store, annotator.segmenter_version)
        self._pending = 0
        self._missed = threading.Event()
        self._attempts: dict[int, tuple[int, float]] = {}  # of events that failed: how many, and when to try again
        self._unfolded: set[tuple[str, int]] = set()  # annotations whose folded segments Label Studio did not take yet

    @property
    def backlog(self) -> int:
        """How many events were not taken in yet at the last look."""
        return self._pending

    def project(self, number: str, label_config: str, extra_params: Mapping[str, Any]) -> Project:
        """A project as its annotators taught it to be, unless learning is off. Raises as `Annotator.set_up`."""
        project = self._annotator.set_up(label_config, extra_params)
        if not self.is_on(number):
            return project
        return project.with_learned(self._knowledge.of(number, named_labels(project.targets)))

    def is_on(self, number: str) -> bool:
        """Whether a project learns."""
        return self._on and self._store.learning(number)

    def compare_soon(self) -> None:
        """Compare with Label Studio within a minute, if ever: it may know what the store could not keep."""
        self._missed.set()

    def run(self, stop: threading.Event, every: float) -> None:
        """Learn until told to stop, and compare with Label Studio at once and `every` so many seconds, if ever."""
        compares, compare = self._studio is not None and every > 0, time.monotonic()
        pause = _IDLE_S
        while not stop.is_set():
            try:
                if self._missed.is_set():
                    self._missed.clear()
                    compare = min(compare, time.monotonic() + _COMPARE_AGAIN_S)
                if compares and time.monotonic() >= compare:
                    wait = every if self.synchronise_all() else min(every, _COMPARE_AGAIN_S)
                    compare = time.monotonic() + wait
                if not self.catch_up():
                    stop.wait(_IDLE_S)
                if pause > _IDLE_S:
                    log.info("learning goes on")
                pause = _IDLE_S
            except Exception as error:
                pause = min(2 * pause, _LONGEST_PAUSE_S)
                defect = None if isinstance(error, StoreError) else error
                log.warning("learning was interrupted and goes on in %.0f s: %s", pause, error, exc_info=defect)
                stop.wait(pause)

    def catch_up(self) -> int:
        """Take in the oldest pending events that are due; how many are done with. Raises `StoreError`."""
        now, pending = time.monotonic(), self._store.pending()
        self._pending = len(pending)
        due = [each for each in pending if self._attempts.get(each, (0, now))[1] <= now]
        return sum(self._is_done(number, self._store.event(number)) for number in due[:_BATCH])

    def _is_done(self, number: int, event: Event) -> bool:
        """Take in an event; false where it should be tried again."""
        told = f"{event.action} in project {event.project}"
        try:
            self.take_in(event)
        except StoreError:
            raise
        except (ImageFetchError, StudioError, BusyError) as error:
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
        self._finish(number)
        return True

    def _finish(self, number: int) -> None:
        self._store.finish(number)
        self._attempts.pop(number, None)

    def take_in(self, event: Event) -> None:
        """Learn from one event. Raises `WalkcutError` where it, or its picture, is of no use."""
        if not self.is_on(event.project):
            return
        match event.action:
            case "ANNOTATION_CREATED" | "ANNOTATION_UPDATED":
                submission = read_submission(event.body.get("task"), event.body.get("annotation"))
                self._learn_from(event.project, submission, _told_config(event))
            case "ANNOTATIONS_DELETED":
                gone = read_numbers(event.body.get("annotations"))
                self._forget(event.project, "annotation", gone)
                self._store.drop_lessons(event.project, gone)
            case "TASKS_DELETED":
                gone = read_numbers(event.body.get("tasks"))
                self._forget(event.project, "task", gone)
                taught = self._store.taught(event.project)
                self._store.drop_lessons(event.project, {each.annotation for each in taught if each.task in gone})

    def _forget(self, project: str, kind: str, gone: Collection[int]) -> None:
        """Be done with the events that wait and would bring back what is gone: annotations or tasks by their ids."""
        for number in tuple(self._attempts):
            event = self._store.event(number)
            document = event.body.get(kind)
            if event.project == project and isinstance(document, Mapping) and document.get("id") in gone:
                self._finish(number)

    def synchronise_all(self) -> bool:
        """Compare all projects that learn with Label Studio; whether all could be: one that could not is logged.

        Raises `StoreError`.
        """
        complete = True
        for number in self._store.projects():
            try:
                if self.is_on(number):
                    log.info("project %s: %s", number, self.synchronise(number))
            except StoreError:
                raise
            except WalkcutError as error:
                complete = False
                log.warning("project %s was not compared with Label Studio yet: %s", number, error)
        return complete

    def synchronise(self, number: str) -> Synchronised:
        """Learn from annotations that webhooks did not tell of, and forget those that are gone.

        Raises `StudioError` where Label Studio cannot be asked, and `BusyError` where nothing can be learned now.
        """
        if self._studio is None:
            raise StudioError("Label Studio cannot be asked: set LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY")
        known = {each.annotation: each.updated for each in self._store.taught(number)}
        seen, learned, failed = set(), 0, 0
        for task, annotation in self._studio.annotations(number):
            submission = read_submission(task, annotation)
            seen.add(submission.annotation)
            if known.get(submission.annotation) != read_moment(submission.updated_at):
                try:
                    self._learn_from(number, submission)
                    learned += 1
                except (BusyError, StudioError):
                    raise
                except WalkcutError as error:
                    failed += 1
                    log.warning("nothing learned from annotation %d: %s", submission.annotation, error)
        gone = known.keys() - seen
        self._store.drop_lessons(number, gone)
        return Synchronised(learned, len(gone), failed)

    def _learn_from(self, number: str, submission: Submission, config: str = "") -> None:
        """Keep what an annotation teaches, and fold segments by it the first time; a skipped task teaches nothing."""
        if submission.skipped:
            self._forget(number, "annotation", {submission.annotation})
            self._store.drop_lessons(number, {submission.annotation})
            return
        config = (
            config or self._store.label_config(number) or (self._studio.label_config(number) if self._studio else "")
        )
        project = self._annotator.set_up(config, self._store.extra_params(number))
        drawings = [self._drawing(submission, target) for target in project.targets]
        if not self._store.has_lesson(number, submission.annotation):
            self._unfolded.add((number, submission.annotation))
        self._store.keep_lesson(self._lesson(number, submission, drawings))
        self._offer_folded(number, submission, folded(drawings, project.options.min_area))

    def _offer_folded(
        self, number: str, submission: Submission, regions: Sequence[tuple[BrushTarget, list[Region]]]
    ) -> None:
        """Put folded segments into Label Studio, once for each annotation."""
        key, task = (number, submission.annotation), submission.task
        if key in self._unfolded and self._studio is not None and regions:
            version = f"folded-walkcut-{submission.annotation}"
            # An earlier attempt may have come through, though its answer was lost.
            if version not in self._studio.predictions(task.id).values():
                found = prediction(task, regions, version).as_json()
                self._studio.add_predictions(number, [{"task": task.id, **found}])
        self._unfolded.discard(key)

    def _drawing(self, submission: Submission, target: BrushTarget) -> Drawing:
        task = submission.task
        tree = self._annotator.tree(task.reference(target), task.id)
        return Drawing(target, tree, annotated_regions(submission.result, target, tree.size))

    def _lesson(self, number: str, submission: Submission, drawings: Sequence[Drawing]) -> Lesson:
        """What an annotation teaches by all pictures of its task."""
        lessons = [
            teach(
                drawing.tree,
                [(region.label, region.mask) for region in drawing.regions],
                project=number,
                annotation=submission.annotation,
                task=submission.task.id,
                updated_at=submission.updated_at,
                segmenter=self._annotator.segmenter_version,
                neutral=drawing.target.neutral,
                taken=self._taken(submission),
            )
            for drawing in drawings
        ]
        fits = [lesson.coverings for lesson in lessons if lesson.coverings]
        means = {name: float(np.mean([fit[name] for fit in fits])) for name in (fits[0] if fits else ())}
        examples = tuple(example for lesson in lessons for example in lesson.examples)
        return replace(lessons[0], coverings=means, examples=examples)

    def _taken(self, submission: Submission) -> str:
        """The model version of the prediction that the annotator started from, as far as it can be known."""
        if self._studio is None or submission.parent_prediction is None:
            return ""
        try:
            return self._studio.prediction_version(submission.parent_prediction)
        except StudioError as error:
            log.info("which prediction was taken is not known: %s", error)
            return ""


def _told_config(event: Event) -> str:
    """The labelling config in an event's document of the project; empty where there is none."""
    project = event.body.get("project")
    config = project.get("label_config") if isinstance(project, dict) else None
    return config if isinstance(config, str) else ""
