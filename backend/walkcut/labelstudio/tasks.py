"""Tasks, and what a request says besides them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from walkcut.errors import RequestError
from walkcut.labelstudio.config import BrushControl
from walkcut.labelstudio.json_input import read_json


@dataclass(frozen=True)
class Task:
    """A task as Label Studio sends it; `id` is 0 in previews.

    `drafts` are the asking annotator's own; they, `annotations` and `predictions` come in interactive calls alone.
    """

    id: int
    data: Mapping[str, Any]
    drafts: Sequence[Mapping[str, Any]] = ()
    annotations: Sequence[Mapping[str, Any]] = ()
    predictions: Sequence[Mapping[str, Any]] = ()

    def reference(self, control: BrushControl) -> str:
        """What the task says of a target's image. Raises `RequestError` where it says nothing of use."""
        value = self.data.get(control.data_key)
        if not isinstance(value, str) or not value.strip():
            shown = json.dumps(value, default=str)[:60]
            raise RequestError(
                f"task {self.id} has no image: data.{control.data_key} is {shown}; write one image's address there"
            )
        return value


def read_tasks(body: Mapping[str, Any]) -> list[Task]:
    """The tasks of a request, in order; one that is no task has no data. Raises `RequestError` without a list."""
    tasks = body.get("tasks")
    if not isinstance(tasks, list):
        raise RequestError('the request needs "tasks", a list of tasks as Label Studio sends them')
    return [read_task(task if isinstance(task, dict) else {}) for task in tasks]


def read_task(document: Mapping[str, Any]) -> Task:
    """A task from its document; what the document lacks is empty."""
    number, data = document.get("id"), document.get("data")
    drafts, annotations, predictions = (
        _results(document.get(name)) for name in ("drafts", "annotations", "predictions")
    )
    return Task(
        number if isinstance(number, int) else 0,
        data if isinstance(data, dict) else {},
        drafts,
        annotations,
        predictions,
    )


def _results(documents: object) -> tuple[Mapping[str, Any], ...]:
    """Those of the documents that hold a list of results, the one that was changed last at the end."""
    found = [each for each in (documents if isinstance(documents, list) else []) if _holds_result(each)]
    return tuple(sorted(found, key=lambda each: str(each.get("updated_at", ""))))


def _holds_result(document: object) -> bool:
    return isinstance(document, dict) and isinstance(document.get("result"), list)


def read_extra_params(value: object) -> dict[str, Any]:
    """Extra parameters of the model's settings: an object, or its JSON as the settings form sends it; else nothing."""
    if isinstance(value, str):
        try:
            value = read_json(value)
        except RequestError:
            return {}
    return value if isinstance(value, dict) else {}
