"""One task in, its predictions out."""

import hashlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import Any, TypeVar

import numpy as np

from walkcut.errors import RequestError, SettingsError, WalkcutError
from walkcut.hierarchy.cut_tree import CutTree
from walkcut.hierarchy.granularity import Granularity, Level, parse_granularity
from walkcut.images import Deadline, PictureSource
from walkcut.inference.tree_service import Grower, Turn
from walkcut.labelstudio import BrushTarget, Prediction, Region, Task, brush_targets, prediction
from walkcut.learning.examples import Learned, suggest_labels
from walkcut.segmentation.visualization import neighbour_colours
from walkcut.storage import Place, picture_digest
from walkcut.telemetry.logs import logged
from walkcut.telemetry.stages import failed, stage

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")

_RECENT_S = 600.0
_AT_ANY_TIME = Turn()


@dataclass(frozen=True)
class Options:
    """What a project may choose: the granularity that pre-fills annotations, how many and how small regions, and how
    sure a learned label must be."""

    granularity: Granularity = Level.AUTO
    max_regions: int = 40
    min_area: float = 0.0005
    label_confidence: float = 0.5

    def __post_init__(self) -> None:
        if self.max_regions < 1:
            raise SettingsError(f"max_regions is {self.max_regions}; a prediction needs room for 1 region at least")
        if not 0 <= self.min_area < 1:
            raise SettingsError(f"min_area is {self.min_area}; write a share of the picture from 0 to 1, such as 0.001")
        if not 0 <= self.label_confidence <= 1:
            raise SettingsError(f"label_confidence is {self.label_confidence}; write a number from 0 to 1, such as 0.5")

    @property
    def granularities(self) -> tuple[Granularity, ...]:
        """What is offered for each task, the default last: Label Studio pre-fills annotations with the last one."""
        offered = (Level.COARSE, Level.MEDIUM, Level.FINE, Level.AUTO)
        return (*(level for level in offered if level != self.granularity), self.granularity)


@dataclass(frozen=True)
class Project:
    """What a labelling config, a project's settings and its lessons come to: where regions go, and which are wished."""

    targets: tuple[BrushTarget, ...]
    options: Options
    learned: Learned = field(default_factory=Learned)

    def with_learned(self, learned: Learned) -> "Project":
        """The project with what its annotators taught; their granularity comes before all that was configured."""
        granularity = learned.granularity or self.options.granularity
        return replace(self, learned=learned, options=replace(self.options, granularity=granularity))


def project_options(default: Options, extra_params: Mapping[str, Any], attributes: Mapping[str, str]) -> Options:
    """A project's options: attributes of its brush tag before extra parameters of its model before the `default`.

    Raises `RequestError` that names an option which cannot be used.
    """
    chosen = {**extra_params, **attributes}
    try:
        return Options(
            _option(chosen, "granularity", parse_granularity, default.granularity),
            _option(chosen, "max_regions", int, default.max_regions),
            _option(chosen, "min_area", float, default.min_area),
            _option(chosen, "label_confidence", float, default.label_confidence),
        )
    except (ValueError, WalkcutError) as error:
        raise RequestError(f"the labelling config or the extra parameters cannot be used: {error}") from error


def model_version(segmenter: str, method: str, project: Project, granularity: Granularity) -> str:
    """The model version of predictions by a method, on trees of a version of a segmenter.

    It changes with every setting that changes the answer.
    """
    settings = f"{segmenter} {project.targets} {project.options} {project.learned.digest}"
    digest = hashlib.sha256(settings.encode()).hexdigest()[:8]
    return f"{granularity}-walkcut-{method}-{digest}"


def configured_project(targets: tuple[BrushTarget, ...], default: Options, extra_params: Mapping[str, Any]) -> Project:
    """A project before anything is learned: its options are those of its first brush. Raises as `project_options`."""
    return Project(targets, project_options(default, extra_params, targets[0].options))


class Annotator:
    """Predictions for tasks: fetches their pictures, and has their cut trees grown.

    Annotators' own calls are given up after `patience` seconds, before Label Studio does.
    """

    def __init__(self, grower: Grower, source: PictureSource, options: Options, *, patience: float = 80.0) -> None:
        self.grower = grower
        self._source, self._options, self._patience = source, options, patience
        self._recent_digest = lru_cache(maxsize=1024)(self._fetched_digest)

    def version(self, project: Project, granularity: Granularity) -> str:
        """The model version of a prediction; it changes with every setting that changes the answer."""
        return model_version(self.grower.version, self.grower.method, project, granularity)

    @property
    def segmenter_version(self) -> str:
        """What changes with anything that changes trees."""
        return self.grower.version

    def introduce(self, hostname: str, token: str) -> None:
        """Take note of what Label Studio says of itself; settings come first."""
        self._source.introduce(hostname, token)

    def set_up(self, label_config: str, extra_params: Mapping[str, Any]) -> Project:
        """A project by its labelling config. Raises `LabelConfigError` or `RequestError`."""
        return configured_project(brush_targets(label_config), self._options, extra_params)

    def predict(self, task: Task, project: Project, turn: Turn = _AT_ANY_TIME) -> list[Prediction]:
        """A prediction per granularity, the default last. Raises `WalkcutError` where a picture cannot be had."""
        trees = [(target, self.tree(task.reference(target), task.id, turn=turn)) for target in project.targets]
        predictions = []
        for granularity in project.options.granularities:
            with stage("regions"):
                regions = [(target, find_regions(tree, granularity, project, target)) for target, tree in trees]
            with stage("encode"):
                predictions.append(prediction(task, regions, self.version(project, granularity)))
        return predictions

    def tree(self, reference: str, task_id: int, place: Place | None = None, turn: Turn = _AT_ANY_TIME) -> CutTree:
        """The cut tree of a picture, or of a place in it, from the cache or grown. Raises `WalkcutError`."""
        return self.grower.tree(self._fetched(reference, task_id), place, turn)

    def recent_tree(self, reference: str, task_id: int, place: Place | None = None) -> CutTree:
        """The same for an annotator who is at work: a picture that was fetched minutes ago is not asked for again."""
        digest = self._recent_digest(reference, task_id, int(time.monotonic() // _RECENT_S))
        tree = self.grower.known(digest, place)
        turn = Turn(urgent=True, deadline=Deadline(self._patience))
        return tree or self.tree(reference, task_id, place, turn)

    def _fetched_digest(self, reference: str, task_id: int, _period: int) -> str:
        return picture_digest(self._fetched(reference, task_id))

    def _fetched(self, reference: str, task_id: int) -> bytes:
        with stage("fetch"):
            return self._source.fetch(reference, task_id or None)


def find_regions(tree: CutTree, granularity: Granularity, project: Project, target: BrushTarget) -> list[Region]:
    """The largest segments of a picture that are large enough, largest first; no pixel is in two.

    What looks like something that annotators named bears that label, and the confidence in it as its score. Other
    neighbours take different neutral labels where there are enough, and their score is one less what it would cost to
    cut them from their neighbour in the tree.
    """
    groups, options = tree.groups(granularity), project.options
    labels = groups.astype(np.uint16)[tree.leaves]
    areas = np.bincount(groups, tree.areas)
    colours, scores = neighbour_colours(labels, len(target.neutral)), tree.separations(granularity)
    learned = suggest_labels(tree, groups, project.learned, options.label_confidence)
    largest = np.argsort(-areas, kind="stable")[: options.max_regions]
    regions = []
    for segment in largest[areas[largest] >= options.min_area * labels.size]:
        label, confidence = learned[segment]
        mask, notes = labels == segment, tree.concessions
        if label in target.labels:
            notes = (*notes, f"label learned from annotations, confidence {confidence:.2f}")
            regions.append(Region(mask, label, confidence, notes))
        else:
            regions.append(Region(mask, target.neutral[colours[segment]], float(scores[segment]), notes))
    return regions


def predict_all(
    annotator: Annotator, tasks: Sequence[Task], project: Project, deadline: Deadline
) -> list[list[Prediction]]:
    """Predictions for each task, in order; none for a task that failed or came too late, which is asked for again.

    A single task goes before others: somebody has opened it.
    """
    turn = Turn(urgent=len(tasks) == 1, deadline=deadline)
    return [_predict_in_time(annotator, task, project, turn) for task in tasks]


def _predict_in_time(annotator: Annotator, task: Task, project: Project, turn: Turn) -> list[Prediction]:
    """A task's predictions, or none."""
    if turn.deadline is not None and turn.deadline.passed:
        log.warning("no time left for task %s: it will be asked for again", task.id)
        return []
    return guarded(task, partial(annotator.predict, task, project, turn), otherwise=[])


def guarded(task: Task, answer: Callable[[], Answer], *, otherwise: Answer) -> Answer:
    """An answer for one task, whose failure is its own, counted and logged."""
    with logged(task=task.id):
        try:
            return answer()
        except WalkcutError as error:
            failed(error)
            log.warning("nothing for task %s: %s", task.id, error)
        except Exception as error:
            failed(error)
            log.exception("nothing for task %s: a defect of walkcut, please report it", task.id)
    return otherwise


def _option(chosen: Mapping[str, Any], name: str, parse: Callable[[str], Any], default: Any) -> Any:
    """An option's value, or the default where it was not chosen."""
    return parse(str(chosen[name])) if name in chosen else default
