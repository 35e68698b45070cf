"""Tasks, submitted annotations and their ids, and extra parameters, from documents of requests or of the API."""

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any, Final

from walkcut.errors import RequestError
from walkcut.images import kind_of
from walkcut.labelstudio.config import ImageTag
from walkcut.labelstudio.json_input import read_json
from walkcut.labelstudio.task_data import describe, resolve, value_at

_MAX_NAMED_FIELDS: Final = 3
_MAX_ID: Final = (1 << 63) - 1  # what a database holds


@dataclass(frozen=True)
class Task:
    """A task as Label Studio sends it; `id` is 0 in previews.

    `drafts` (of the requesting annotator), `annotations` and `predictions` are sent with interactive calls only.
    """

    id: int
    data: Mapping[str, Any]
    drafts: Sequence[Mapping[str, Any]] = ()
    annotations: Sequence[Mapping[str, Any]] = ()
    predictions: Sequence[Mapping[str, Any]] = ()

    @property
    def draft(self) -> Mapping[str, Any]:
        """The draft that was changed last; empty without one."""
        return self.drafts[-1] if self.drafts else {}

    def images(self, image_tags: Iterable[ImageTag]) -> list["TaskImage"]:
        """Return the images of the tags, in order; each page of a list of images is one."""
        return [
            TaskImage(self, tag.with_task_labels(self.data), page) for tag in image_tags for page in self._pages(tag)
        ]

    def _pages(self, tag: ImageTag) -> Iterable[int | None]:
        value = resolve(tag.value, self.data) if tag.is_list else None
        return range(len(value)) if isinstance(value, list) and value else [0 if tag.is_list else None]


@dataclass(frozen=True)
class TaskImage:
    """An image of a task: the tag that shows it and, if that shows a list of images, its index there."""

    task: Task
    tag: ImageTag
    item_index: int | None = None

    @property
    def name(self) -> str:
        """The name of its tag, and its page if it is one of a list, counted from 1."""
        return self.tag.name if self.item_index is None else f"{self.tag.name} page {self.item_index + 1}"

    @property
    def reference(self) -> str:
        """The reference to the image. Raises `RequestError` where the task's data have none."""
        value = found = resolve(self.tag.value, self.task.data)
        if isinstance(found, list) and (self.tag.is_list or len(found) == 1):
            value = found[self.item_index or 0] if found else None
        elif self.tag.is_list:
            value = None  # Label Studio shows nothing
        if not isinstance(value, str) or not value.strip():
            paths, data = self.tag.data_paths[:_MAX_NAMED_FIELDS], self.task.data
            fields = ", ".join(f"data.{path[:80]} is {describe(value_at(path, data))}" for path in paths)
            remedy = "set it to a list of addresses" if self.tag.is_list else "set it to the address of one image"
            if self.tag.is_list and isinstance(found, list) and found:
                fields = f"data.{paths[0][:80]}[{self.item_index or 0}] is {describe(value)}"
                remedy = "set it to the address of one image"
            raise RequestError(f"task {self.task.id} has no image: {fields}; {remedy}")
        return value

    def holds(self, item: Mapping[str, Any]) -> bool:
        """Return whether an item of a result is on the image; one without a page is on the first."""
        page = item.get("item_index")
        is_page = (page if isinstance(page, int) else 0) == (self.item_index or 0)
        return item.get("to_name") == self.tag.name and is_page


@dataclass(frozen=True)
class Submission:
    """An annotation that was submitted for a task.

    `updated_at` is the time of its last change (UTC, ISO 8601), `parent_prediction` the id of the prediction that it
    was started from. `skipped`: the annotator declined to annotate the task.
    """

    task: Task
    annotation_id: int
    updated_at: str
    result: Sequence[Any]
    parent_prediction: int | None = None
    skipped: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the documents of the task and the annotation, from which `read_submission` makes an equal one."""
        annotation = {"id": self.annotation_id, "updated_at": self.updated_at, "result": list(self.result)}
        started = {"parent_prediction": self.parent_prediction, "was_cancelled": self.skipped}
        return {"task": {"id": self.task.id, "data": dict(self.task.data)}, "annotation": annotation | started}


def read_tasks(body: Mapping[str, Any]) -> list[Task]:
    """Return the tasks of a request, in order; malformed ones are empty. Raises `RequestError` without a list."""
    tasks = body.get("tasks")
    if not isinstance(tasks, list):
        raise RequestError('the request needs "tasks", a list of tasks as Label Studio sends them')
    return [read_task(task if isinstance(task, dict) else {}) for task in tasks]


def read_task(document: Mapping[str, Any]) -> Task:
    """Return a task from its document; missing parts are empty."""
    identity, data = document.get("id"), document.get("data")
    return Task(
        identity if isinstance(identity, int) and 0 <= identity <= _MAX_ID else 0,
        data if isinstance(data, dict) else {},
        *(_with_results(document.get(name)) for name in ("drafts", "annotations", "predictions")),
    )


def _with_results(documents: object) -> tuple[Mapping[str, Any], ...]:
    """Return the documents that have a list of results, the last changed at the end."""
    valid = [
        document
        for document in (documents if isinstance(documents, list) else [])
        if isinstance(document, dict) and isinstance(document.get("result"), list)
    ]
    return tuple(sorted(valid, key=lambda document: str(document.get("updated_at", ""))))


def read_extra_params(value: object) -> dict[str, Any]:
    """Return the extra parameters of the model's settings: an object, its JSON text, or nothing.

    Raises `RequestError` for anything else.
    """
    if isinstance(value, str):
        with suppress(RequestError):
            value = read_json(value)
    if not value:
        return {}
    if isinstance(value, dict):
        return value
    raise RequestError(f'the extra parameters are {kind_of(value)}: write an object, such as {{"max_regions": 30}}')


def read_submission(task: object, annotation: object) -> Submission:
    """Return a submission from the documents of its task and its annotation. Raises `RequestError` for others."""
    if not isinstance(task, Mapping) or not isinstance(annotation, Mapping):
        raise RequestError(
            "an event needs the documents of a task and of an annotation: switch on *Send payload* of the webhook in "
            "Label Studio"
        )
    parent, result = annotation.get("parent_prediction"), annotation.get("result")
    if not isinstance(result, list):
        raise RequestError(f"the result of an annotation is {kind_of(result)}: send a list as Label Studio does")
    return Submission(
        replace(read_task(task), id=parse_id(task)),
        parse_id(annotation),
        parse_timestamp(annotation.get("updated_at")).isoformat(),
        result,
        parent if isinstance(parent, int) else None,
        annotation.get("was_cancelled") is True,
    )


def parse_id(document: object) -> int:
    """Return the id of a document. Raises `RequestError` without an id from 0 to 2⁶³ - 1."""
    identity = document.get("id") if isinstance(document, Mapping) else None
    if not isinstance(identity, int) or isinstance(identity, bool) or not 0 <= identity <= _MAX_ID:
        raise RequestError(f"a document needs a number as its id, from 0 to 2⁶³ - 1: it has {kind_of(identity)}")
    return identity


def parse_ids(documents: object) -> frozenset[int]:
    """Return the ids of a list of documents. Raises `RequestError` for anything else."""
    if not isinstance(documents, list):
        raise RequestError(f"a deletion needs the list of what was deleted: it has {kind_of(documents)}")
    return frozenset(map(parse_id, documents))


def parse_timestamp(text: object, field: str = "updated_at") -> datetime:
    """Return a time in UTC from a text such as `2026-11-20T08:38:56.976830Z`. Raises `RequestError` for others."""
    try:
        return datetime.fromisoformat(str(text).replace("Z", "+00:00")).astimezone(timezone.utc)
    except (ValueError, OverflowError) as error:
        raise RequestError(f"{field} is {kind_of(text)} that is not a time: send it as Label Studio does") from error


def parse_project_id(project: object) -> str:
    """Return a project's id as text, empty for anything else.

    Label Studio sends the id alone, or with the time of creation, or within the project's document:

    >>> parse_project_id("4.1795164114"), parse_project_id({"id": 4}), parse_project_id(None)
    ('4', '4', '')
    """
    text = str(project.get("id") if isinstance(project, Mapping) else project)
    match = re.fullmatch(r"0*([0-9]{1,18})(\.[0-9]*)?", text)
    return match[1] if match else ""


def parse_project_created(project: object) -> int:
    """Return when a project was created, in seconds since 1970, and 0 where it does not say.

    Two Label Studios number their projects alike, but do not create them in the same second:

    >>> parse_project_created("4.1795164114"), parse_project_created({"created_at": "2026-11-20T08:38:56.97Z"})
    (1795164114, 1795163936)
    """
    if isinstance(project, Mapping):
        created = project.get("created_at")
        return max(0, int(parse_timestamp(created, "created_at").timestamp())) if created else 0
    match = re.fullmatch(r"[0-9]{1,18}\.([0-9]{1,18})", str(project))
    return int(match[1]) if match else 0
