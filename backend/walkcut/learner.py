"""What annotators submit, taken in one by one: lessons for their project, and segments folded by their strokes."""

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from walkcut.annotator import Annotator, Project
from walkcut.errors import ImageFetchError, StudioError, WalkcutError
from walkcut.labelstudio import (
    AnnotatedRegion,
    BrushTarget,
    Region,
    Submission,
    annotated_regions,
    label_map,
    named_labels,
    prediction,
    read_number,
    read_submission,
)
from walkcut.lessons import Learned, Lesson, learn, teach
from walkcut.segmentation.granularity import Level
from walkcut.segmentation.oracle import main_regions
from walkcut.segmentation.tree import CutTree
from walkcut.store import Event, ProjectStore
from walkcut.studio import Studio

log = logging.getLogger(__name__)

_BATCH = 16  # events held in memory
_MOST_ATTEMPTS = 6  # to take in an event whose picture cannot be had, in about a minute
_IDLE_S = 1.0
_WHOLE = 0.98  # of the picture: an annotation that covers so much leaves nothing to fold


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
        self._known: dict[str, tuple[object, Learned]] = {}
        self._attempts: dict[int, tuple[int, float]] = {}  # of events that failed: how many, and when to try again

    def project(self, number: str, label_config: str, extra_params: Mapping[str, Any]) -> Project:
        """A project as its annotators taught it to be, unless learning is off. Raises as `Annotator.set_up`."""
        project = self._annotator.set_up(label_config, extra_params)
        return project.with_learned(self.learned(number, project)) if self.is_on(number) else project

    def is_on(self, number: str) -> bool:
        """Whether a project learns."""
        return self._on and self._store.learning(number)

    def learned(self, number: str, project: Project) -> Learned:
        """What a project's lessons come to, for the labels that it still has."""
        named = named_labels(project.targets)
        state = (self._store.revision(number), named)
        known = self._known.get(number)
        if known is None or known[0] != state:
            known = state, learn(self._store.lessons(number), self._annotator.segmenter_version, named)
            self._known[number] = known
        return known[1]

    def run(self, stop: threading.Event, every: float) -> None:
        """Learn until told to stop, and compare with Label Studio at once and `every` so many seconds, if ever."""
        compare = time.monotonic() if self._studio is not None and every > 0 else float("inf")
        while not stop.is_set():
            try:
                if time.monotonic() >= compare:
                    compare = time.monotonic() + every
                    self.synchronise_all()
                if not self.catch_up():
                    stop.wait(_IDLE_S)
            except Exception:  # the database may be away for a while
                log.exception("learning was interrupted, and goes on")
                stop.wait(5 * _IDLE_S)

    def catch_up(self) -> int:
        """Take in the oldest pending events; how many are done with."""
        due = [
            each for each in self._store.pending(_BATCH) if self._attempts.get(each[0], (0, 0.0))[1] <= time.monotonic()
        ]
        return sum(self._is_done(number, event) for number, event in due)

    def _is_done(self, number: int, event: Event) -> bool:
        """Take in an event; false where it should be tried again."""
        try:
            self.take_in(event)
        except (ImageFetchError, StudioError) as error:
            attempts = self._attempts.get(number, (0, 0.0))[0] + 1
            if attempts < _MOST_ATTEMPTS:
                self._attempts[number] = attempts, time.monotonic() + 2**attempts
                return False
            log.warning("nothing learned from %s in project %s: %s", event.action, event.project, error)
        except WalkcutError as error:
            log.warning("nothing learned from %s in project %s: %s", event.action, event.project, error)
        except Exception:
            log.exception("nothing learned from %s: a defect of walkcut, please report it", event.action)
        self._attempts.pop(number, None)
        self._store.finish(number)
        return True

    def take_in(self, event: Event) -> None:
        """Learn from one event. Raises `WalkcutError` where it, or its picture, is of no use."""
        if not self.is_on(event.project):
            return
        match event.action:
            case "ANNOTATION_CREATED" | "ANNOTATION_UPDATED":
                submission = read_submission(event.body.get("task"), event.body.get("annotation"))
                self._learn_from(event.project, submission, _told_config(event))
            case "ANNOTATIONS_DELETED":
                for each in event.body.get("annotations") or []:
                    self._store.drop_lesson(event.project, read_number(each))
            case "TASKS_DELETED":
                gone = {read_number(each) for each in event.body.get("tasks") or []}
                for lesson, _ in self._store.all_lessons(event.project):
                    if lesson.task in gone:
                        self._store.drop_lesson(event.project, lesson.annotation)

    def synchronise_all(self) -> None:
        """Compare all projects that learn with Label Studio; one that cannot be compared is logged."""
        for number in self._store.projects():
            try:
                if self.is_on(number):
                    log.info("project %s: %s", number, self.synchronise(number))
            except WalkcutError as error:
                log.warning("project %s was not compared with Label Studio: %s", number, error)

    def synchronise(self, number: str) -> Synchronised:
        """Learn from annotations that webhooks did not tell of, and forget those that are gone.

        Raises `StudioError` where Label Studio cannot be asked.
        """
        if self._studio is None:
            raise StudioError("Label Studio cannot be asked: set LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY")
        known = {lesson.annotation: lesson.updated_at for lesson, _ in self._store.all_lessons(number)}
        seen, learned, failed = set(), 0, 0
        for task, annotation in self._studio.annotations(number):
            submission = read_submission(task, annotation)
            seen.add(submission.annotation)
            if known.get(submission.annotation) != submission.updated_at:
                try:
                    self._learn_from(number, submission)
                    learned += 1
                except WalkcutError as error:
                    failed += 1
                    log.warning("nothing learned from annotation %d: %s", submission.annotation, error)
        gone = known.keys() - seen
        for annotation_id in gone:
            self._store.drop_lesson(number, annotation_id)
        return Synchronised(learned, len(gone), failed)

    def _learn_from(self, number: str, submission: Submission, config: str = "") -> None:
        """Keep what an annotation teaches, and fold segments by it the first time; a skipped task teaches nothing."""
        if submission.skipped:
            self._store.drop_lesson(number, submission.annotation)
            return
        config = (
            config or self._store.label_config(number) or (self._studio.label_config(number) if self._studio else "")
        )
        project = self._annotator.set_up(config, self._store.extra_params(number))
        drawings = [self._drawing(submission, target) for target in project.targets]
        is_new = not self._store.has_lesson(number, submission.annotation)
        self._store.keep_lesson(self._lesson(number, submission, drawings))
        if is_new and self._studio is not None and (folded := _folded(drawings, project)):
            version = f"folded-walkcut-{submission.annotation}"
            found = prediction(submission.task, folded, version).as_json()
            self._studio.add_predictions(number, [{"task": submission.task.id, **found}])

    def _drawing(self, submission: Submission, target: BrushTarget) -> "_Drawing":
        task = submission.task
        tree = self._annotator.tree(task.reference(target), task.id)
        return _Drawing(target, tree, annotated_regions(submission.result, target, tree.size))

    def _lesson(self, number: str, submission: Submission, drawings: Sequence["_Drawing"]) -> Lesson:
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


@dataclass(frozen=True)
class _Drawing:
    """What was drawn on one picture of a task."""

    target: BrushTarget
    tree: CutTree
    regions: Sequence[AnnotatedRegion]


def _folded(drawings: Sequence[_Drawing], project: Project) -> list[tuple[BrushTarget, list[Region]]]:
    """The fine segments of each picture folded by what was drawn; nothing where the drawings leave nothing to fold."""
    return [(drawing.target, regions) for drawing in drawings if (regions := _fold(drawing, project.options.min_area))]


def _fold(drawing: _Drawing, min_area: float) -> list[Region]:
    """A region for what each drawn one folds (DWC supplement A), and for each segment that none touches."""
    numbers = label_map(drawing.regions, drawing.tree.size)
    if not numbers.any() or np.count_nonzero(numbers) > _WHOLE * numbers.size:
        return []
    segments = drawing.tree.labels(Level.FINE).astype(np.int64)
    owners = main_regions(segments, numbers)[segments]
    labels = {number: region.label for number, region in enumerate(drawing.regions, 1)}
    folded = [Region(owners == number, label, 1.0) for number, label in labels.items() if (owners == number).any()]
    neutral = drawing.target.neutral
    bare = [segments == segment for segment in np.unique(segments[owners == 0])]
    left = [Region(mask, neutral[place % len(neutral)], 0.0) for place, mask in enumerate(bare)]
    return [*folded, *(region for region in left if region.mask.mean() >= min_area)]
