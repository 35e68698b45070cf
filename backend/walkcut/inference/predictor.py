"""From a Label Studio task to its predictions."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import Any, Generic, TypeVar

import numpy as np
from cachetools import TTLCache, cached

from walkcut.errors import BUG, BusyError, ImageError, RequestError, SegmentationError, WalkcutError
from walkcut.hierarchy.adjacency import colour_graph
from walkcut.hierarchy.cut_tree import CutTree
from walkcut.hierarchy.granularity import Granularity
from walkcut.images import Deadline, ImageLoader
from walkcut.inference.project import Project, ProjectOptions, model_version, project_from_config
from walkcut.inference.queue import Priority
from walkcut.inference.tree_service import TreeService
from walkcut.labelstudio.predictions import Prediction, Region, connected_regions, make_prediction, without_duplicates
from walkcut.labelstudio.tasks import Task, TaskImage
from walkcut.learning.profile import suggest_labels
from walkcut.storage import Crop, image_digest
from walkcut.telemetry.failures import record_failure
from walkcut.telemetry.logs import log_context
from walkcut.telemetry.spans import span

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")

_RECENT_S = 600.0
_NO_PRIORITY = Priority()


class Predictor:
    """Predictions for tasks: loads their images and gets their cut trees.

    Calls that an annotator waits for end after `timeout` seconds, before Label Studio gives up.
    """

    def __init__(
        self, tree_service: TreeService, loader: ImageLoader, options: ProjectOptions, *, timeout: float = 80.0
    ) -> None:
        self.tree_service, self.loader = tree_service, loader
        self._options, self._timeout = options, timeout
        recent: TTLCache[tuple[str, int], str] = TTLCache(1024, _RECENT_S)
        self._recent_digest = cached(recent, key=_image_key, lock=Lock())(self._load_digest)

    def version(self, project: Project, granularity: Granularity) -> str:
        """Return the model version of predictions; see `model_version`."""
        return model_version(self.tree_service.version, project, granularity)

    def project_from_config(self, label_config: str, extra_params: Mapping[str, Any]) -> Project:
        """Return the project of a labelling config. Raises `LabelConfigError` or `RequestError`."""
        return project_from_config(label_config, self._options, extra_params)

    def predict(self, task: Task, project: Project, priority: Priority = _NO_PRIORITY) -> list[Prediction]:
        """Return a prediction per granularity, the default last, without duplicates.

        An image that fails is left out, if there are others. Raises `WalkcutError` if none can be segmented, or all of
        their segments are smaller than the project's regions may be.
        """
        images = for_each_image(
            task.images(project.image_tags),
            lambda image: self.get_tree(image.reference, task.id, priority=priority),
        )
        trees = images.require_any()
        images.report(task)
        predictions = []
        for granularity in project.options.granularities:
            with span("regions"):
                regions = [(image, regions_at_granularity(tree, granularity, project, image)) for image, tree in trees]
            with span("encode"):
                predictions.append(make_prediction(regions, self.version(project, granularity)))
        if not any(prediction.result for prediction in predictions):
            raise SegmentationError(
                f"all segments of task {task.id} are smaller than min_area={project.options.min_area:g} of the image: "
                "lower min_area in the labelling config or the extra parameters"
            )
        return without_duplicates(predictions)

    def get_tree(
        self, reference: str, task_id: int, crop: Crop | None = None, priority: Priority = _NO_PRIORITY
    ) -> CutTree:
        """Return the cut tree of an image, or of a crop of it. Raises `WalkcutError`."""
        return self.tree_service.get_tree(self._load(reference, task_id), crop, priority)

    def tree_for_interactive(self, reference: str, task_id: int, crop: Crop | None = None) -> CutTree:
        """Return the cut tree urgently, for a waiting annotator; an image loaded minutes ago is not loaded again."""
        digest = self._recent_digest(reference, task_id)
        tree = self.tree_service.cached(digest, crop)
        priority = Priority(urgent=True, deadline=Deadline(self._timeout))
        return tree or self.get_tree(reference, task_id, crop, priority)

    def _load_digest(self, reference: str, task_id: int) -> str:
        return image_digest(self._load(reference, task_id))

    def _load(self, reference: str, task_id: int) -> bytes:
        with span("fetch"):
            return self.loader.fetch(reference, task_id or None)


def _image_key(reference: str, task_id: int) -> tuple[str, int]:
    """Return a key that is short even for a reference that holds a whole image, as `data:` URLs do."""
    return image_digest(reference.encode(errors="surrogatepass")), task_id


@dataclass(frozen=True)
class ImageResults(Generic[Answer]):
    """A result for each image of a task, and the errors of the images that failed by themselves."""

    results: list[tuple[TaskImage, Answer]]
    failures: list[tuple[TaskImage, WalkcutError]]

    def require_any(self) -> list[tuple[TaskImage, Answer]]:
        """Return the results. Raises the first failure if there are only failures."""
        if self.failures and not self.results:
            raise self.failures[0][1]
        return self.results

    def report(self, task: Task) -> None:
        """Count the failures, and log each with the name of its image."""
        for image, error in self.failures:
            record_failure(error)
            log.warning("image %r of task %d is left out: %s", image.name, task.id, error)


def for_each_image(images: Sequence[TaskImage], answer: Callable[[TaskImage], Answer]) -> ImageResults[Answer]:
    """Return the answer for each image of a task, in which an image may fail by itself.

    Raises other errors at once, such as `BusyError`: asking for the task again later may help.
    """
    results, failures = list[tuple[TaskImage, Answer]](), list[tuple[TaskImage, WalkcutError]]()
    for image in images:
        try:
            results.append((image, answer(image)))
        except (ImageError, RequestError, SegmentationError) as error:
            failures.append((image, error))
    return ImageResults(results, failures)


def regions_at_granularity(tree: CutTree, granularity: Granularity, project: Project, image: TaskImage) -> list[Region]:
    """Return the largest segments that are large enough as disjoint regions, largest first.

    A segment that resembles a learned label gets it, with the confidence as its score. Other segments get neutral
    labels that differ between neighbours where there are enough of them, or none; their score is their distinctness.
    Where regions are polygons or boxes, each connected part of a segment is one.
    """
    groups, options, tag = tree.segment_of(granularity), project.options, image.tag
    labels = tree.at_pixels(groups.astype(np.uint16))
    areas = np.bincount(groups, tree.areas)
    colours, scores = colour_graph(labels, len(tag.placeholders)), tree.distinctness(granularity)
    learned = suggest_labels(tree, groups, project.profile, options.label_confidence)
    largest = np.argsort(-areas, kind="stable")[: options.max_regions]
    regions = []
    for segment in largest[areas[largest] >= options.min_area * labels.size]:
        label, confidence = learned[segment]
        mask, notes = labels == segment, tree.degradations
        if label in tag.labels:
            notes = (*notes, f"label learned from annotations, confidence {confidence:.2f}")
            regions.append(Region(mask, label, confidence, notes))
        else:
            regions.append(Region(mask, tag.placeholders[colours[segment]], float(scores[segment]), notes))
    parts = connected_regions(regions, image)
    if len(parts) > len(regions):
        large = [part for part in parts if np.count_nonzero(part.mask) >= options.min_area * labels.size]
        parts = sorted(large, key=lambda part: -np.count_nonzero(part.mask))[: options.max_regions]
    return parts


def predict_all(
    predictor: Predictor, tasks: Sequence[Task], project: Project, deadline: Deadline
) -> list[list[Prediction]]:
    """Return the predictions of each task, in order; an empty list for a task that failed or came too late."""
    priority = Priority(urgent=len(tasks) == 1, deadline=deadline)  # somebody has opened a single task
    results: list[list[Prediction]] = []
    for task in tasks:
        if deadline.passed:
            record_failure(BusyError("the time for a request was over: Label Studio asks for the other tasks again"))
            log.warning("task %s timed out: Label Studio asks for it again", task.id)
            results.append([])
        else:
            results.append(isolate_failure(task, partial(predictor.predict, task, project, priority), default=[]))
    return results


def isolate_failure(task: Task, answer: Callable[[], Answer], *, default: Answer) -> Answer:
    """Return the answer for one task, or the default after a failure, which is counted and logged."""
    with log_context(task=task.id):
        try:
            return answer()
        except WalkcutError as error:
            record_failure(error)
            log.warning("task %s was not answered: %s", task.id, error)
        except Exception as error:
            record_failure(error)
            log.exception("task %s was not answered: %s", task.id, BUG)
    return default
