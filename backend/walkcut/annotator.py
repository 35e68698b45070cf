"""One task in, its predictions out."""

import hashlib
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np

from walkcut.errors import GranularityError, RequestError, SettingsError, WalkcutError
from walkcut.images import Deadline, DecodeLimits, PictureSource, decode
from walkcut.labelstudio import BrushTarget, Prediction, Region, Task, brush_targets, prediction, typed_lines
from walkcut.overlay import neighbour_colours
from walkcut.pipeline import Segmenter
from walkcut.segmentation.granularity import Granularity, Level, Segments, parse_granularity
from walkcut.segmentation.tree import CutTree
from walkcut.store import TreeCache

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Options:
    """What a project may choose: the granularity that pre-fills annotations, and how many and how small regions."""

    granularity: Granularity = Level.AUTO
    max_regions: int = 40
    min_area: float = 0.0005

    def __post_init__(self) -> None:
        if self.max_regions < 1:
            raise SettingsError(f"max_regions is {self.max_regions}; a prediction needs room for 1 region at least")
        if not 0 <= self.min_area < 1:
            raise SettingsError(f"min_area is {self.min_area}; write a share of the picture from 0 to 1, such as 0.001")

    @property
    def granularities(self) -> tuple[Granularity, ...]:
        """What is offered for each task, the default last: Label Studio pre-fills annotations with the last one."""
        offered = (Level.COARSE, Level.MEDIUM, Level.FINE, Level.AUTO)
        return (*(level for level in offered if level != self.granularity), self.granularity)


@dataclass(frozen=True)
class Project:
    """What a labelling config and a project's settings come to: where regions go, and which are wished for."""

    targets: tuple[BrushTarget, ...]
    options: Options


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
        )
    except (ValueError, WalkcutError) as error:
        raise RequestError(f"the labelling config or the extra parameters cannot be used: {error}") from error


class Annotator:
    """Predictions for tasks: fetches their pictures, grows cut trees one at a time, remembers them."""

    def __init__(
        self, segmenter: Segmenter, source: PictureSource, limits: DecodeLimits, trees: TreeCache, options: Options
    ) -> None:
        self._segmenter, self._source, self._limits, self._trees = segmenter, source, limits, trees
        self._options = options
        self._model = threading.Lock()

    def version(self, project: Project, granularity: Granularity) -> str:
        """The model version of a prediction; it changes with every setting that changes the answer."""
        digest = hashlib.sha256(f"{self._segmenter.version} {project}".encode()).hexdigest()[:8]
        return f"{granularity}-walkcut-{self._segmenter.recipe.method}-{digest}"

    def introduce(self, hostname: str, token: str) -> None:
        """Take note of what Label Studio says of itself; settings come first."""
        self._source.introduce(hostname, token)

    def set_up(self, label_config: str, extra_params: Mapping[str, Any]) -> Project:
        """A project by its labelling config. Raises `LabelConfigError` or `RequestError`."""
        targets = brush_targets(label_config)
        return Project(targets, project_options(self._options, extra_params, targets[0].options))

    def predict(self, task: Task, project: Project) -> list[Prediction]:
        """A prediction per granularity, the default last. Raises `WalkcutError` where a picture cannot be had."""
        trees = [(target, self.tree(task.reference(target), task.id)) for target in project.targets]
        predictions = []
        for granularity in project.options.granularities:
            regions = [
                (target, find_regions(tree, granularity, project.options, target.neutral)) for target, tree in trees
            ]
            predictions.append(prediction(task, regions, self.version(project, granularity)))
        return predictions

    def suggest(self, task: Task, project: Project, context: object) -> Prediction:
        """What an annotator asked for by typing a granularity; nothing for calls without text.

        Raises `WalkcutError` for words that mean nothing and for pictures that cannot be had.
        """
        regions, wishes = [], []
        for target in project.targets:
            if lines := typed_lines(context, target):
                tree = self.tree(task.reference(target), task.id)
                wishes.append(follow_wishes(lines, tree, project.options.granularity))
                regions.append((target, find_regions(tree, wishes[-1], project.options, target.neutral)))
        return prediction(task, regions, f"typed {' '.join(map(str, wishes))}")

    def tree(self, reference: str, task_id: int) -> CutTree:
        """The cut tree of a picture, from the cache or grown."""
        data = self._source.fetch(reference, task_id or None)
        key = f"{hashlib.sha256(data).hexdigest()[:40]}-{self._segmenter.version}"
        tree = self._trees.get(key)
        if tree is None:
            image = decode(data, self._limits)
            with self._model:
                tree = self._trees.get(key) or self._segmenter.tree(image)  # another request may have waited for it
                self._trees.put(key, tree)
        return tree


def find_regions(tree: CutTree, granularity: Granularity, options: Options, neutral: Sequence[str]) -> list[Region]:
    """The largest segments of a picture that are large enough, largest first; no pixel is in two.

    Neighbours take different `neutral` labels where there are enough. A region's score is one less what it would cost
    to cut it from its neighbour in the tree.
    """
    labels = tree.labels(granularity)
    areas = np.bincount(labels.ravel())
    colours = neighbour_colours(labels, len(neutral))
    scores = tree.separations(granularity)
    largest = np.argsort(-areas, kind="stable")[: options.max_regions]
    return [
        Region(labels == segment, neutral[colours[segment]], float(scores[segment]), tree.concessions)
        for segment in largest
        if areas[segment] >= options.min_area * labels.size
    ]


def follow_wishes(lines: Sequence[str], tree: CutTree, default: Granularity) -> Granularity:
    """The granularity that typed lines come to: each is absolute, or `finer` or `coarser` than what was before.

    A step is half as many segments again, or a third fewer. Raises `GranularityError` where the last line means
    nothing; earlier slips do not matter any more.
    """
    granularity = default
    for line in lines[:-1]:
        with suppress(GranularityError):
            granularity = _follow_wish(line, tree, granularity)
    return _follow_wish(lines[-1], tree, granularity)


def _follow_wish(line: str, tree: CutTree, before: Granularity) -> Granularity:
    """The granularity after one typed line."""
    now = tree.segments(before)
    match line.strip().lower():
        case "finer":
            return Segments(min(max(round(now * 3 / 2), now + 1), tree.hierarchy.leaves))
        case "coarser":
            return Segments(max(min(round(now * 2 / 3), now - 1), 1))
        case _:
            return parse_granularity(line)


def predict_all(
    annotator: Annotator, tasks: Sequence[Task], project: Project, deadline: Deadline
) -> list[list[Prediction]]:
    """Predictions for each task, in order; none for a task that failed or came too late, which is asked for again."""
    return [_predict_in_time(annotator, task, project, deadline) for task in tasks]


def _predict_in_time(annotator: Annotator, task: Task, project: Project, deadline: Deadline) -> list[Prediction]:
    """A task's predictions, or none."""
    if deadline.passed:
        log.warning("no time left for task %s: it will be asked for again", task.id)
        return []
    return _guarded(task, partial(annotator.predict, task, project), otherwise=[])


def suggest_all(annotator: Annotator, tasks: Sequence[Task], project: Project, context: object) -> list[Prediction]:
    """What an annotator is shown for each task; nothing where it failed, since errors are not shown to annotators."""
    nothing = Prediction([], 0.0, "")
    return [_guarded(task, partial(annotator.suggest, task, project, context), otherwise=nothing) for task in tasks]


def _guarded(task: Task, answer: Callable[[], Answer], *, otherwise: Answer) -> Answer:
    """An answer for one task, whose failure is its own, and logged."""
    try:
        return answer()
    except WalkcutError as error:
        log.warning("nothing for task %s: %s", task.id, error)
    except Exception:
        log.exception("nothing for task %s: a defect of walkcut, please report it", task.id)
    return otherwise


def _option(chosen: Mapping[str, Any], name: str, parse: Callable[[str], Any], default: Any) -> Any:
    """An option's value, or the default where it was not chosen."""
    return parse(str(chosen[name])) if name in chosen else default
