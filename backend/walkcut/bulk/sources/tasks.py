"""Images of the tasks of a Label Studio project."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from walkcut.bulk.items import Item, ItemFailure, Skipped
from walkcut.errors import RequestError
from walkcut.labelstudio.config import ImageTag
from walkcut.labelstudio.tasks import Task, read_task

PREDICTED: Final = "with predictions of this model version"
ANNOTATED: Final = "annotated"


def project_items(
    tasks: Iterable[tuple[Mapping[str, Any], frozenset[str]]], image_tags: Sequence[ImageTag], version: str
) -> Iterator[Item | ItemFailure | Skipped]:
    """Yield the images of the tasks that lack a prediction of this model version, that of the default granularity.

    The others are skipped. Each task comes with the versions of its predictions. Each image that a task lacks is a
    failure.
    """
    for document, existing in tasks:
        task = read_task(document)
        keys = task_keys(task, image_tags)
        if version in existing:
            yield Skipped(f"task {task.id}", PREDICTED, keys[0])
            continue
        for index, (key, image) in enumerate(zip(keys, task.images(image_tags), strict=True)):
            try:
                yield Item(key, image.reference, task.data, task.id, index)
            except RequestError as error:
                yield ItemFailure(key, f"task {task.id}", "source", str(error))


def task_of_key(key: str) -> int:
    """Return the id of the task that an image's key is of.

    >>> task_of_key("task-7"), task_of_key("task-7-2")
    (7, 7)
    """
    return int(key.split("-")[1])


def annotated_tasks(project_id: str, count: int) -> Iterator[Skipped]:
    """Yield what stands for the tasks that are annotated, if there are any."""
    if count:
        yield Skipped(f"tasks of project {project_id}", ANNOTATED, count=count)


def task_keys(task: Task, image_tags: Sequence[ImageTag]) -> list[str]:
    """Return the keys of a task's images, in order."""
    images = task.images(image_tags)
    if len(images) == 1:
        return [f"task-{task.id}"]
    return [f"task-{task.id}-{index}" for index in range(1, len(images) + 1)]
