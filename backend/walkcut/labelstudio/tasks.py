"""Tasks and extra parameters of a request."""

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

    def image_reference(self, control: BrushControl) -> str:
        """Return the reference to a control's image. Raises `RequestError` where the task's data have none."""
        value = self.data.get(control.data_key)
        if not isinstance(value, str) or not value.strip():
            found = json.dumps(value, default=str)[:60]
            raise RequestError(
                f"task {self.id} has no image: data.{control.data_key} is {found}; set it to the address of one image"
            )
        return value


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
        identity if isinstance(identity, int) else 0,
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
    """Return the extra parameters of the model's settings, an object or its JSON text; empty for anything else."""
    if isinstance(value, str):
        try:
            value = read_json(value)
        except RequestError:
            return {}
    return value if isinstance(value, dict) else {}
