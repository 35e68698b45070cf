"""Tasks, and what a request says besides them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from walkcut.errors import RequestError
from walkcut.labelstudio.config import BrushTarget


@dataclass(frozen=True)
class Task:
    """A task as Label Studio sends it; `id` is 0 in previews."""

    id: int
    data: Mapping[str, Any]

    def reference(self, target: BrushTarget) -> str:
        """What the task says of a target's picture. Raises `RequestError` where it says nothing of use."""
        value = self.data.get(target.data_key)
        if not isinstance(value, str) or not value.strip():
            shown = json.dumps(value, default=str)[:60]
            raise RequestError(
                f"task {self.id} has no picture: data.{target.data_key} is {shown}; write one picture's address there"
            )
        return value


def read_tasks(body: Mapping[str, Any]) -> list[Task]:
    """The tasks of a request, in order; one that is no task has no data. Raises `RequestError` without a list."""
    tasks = body.get("tasks")
    if not isinstance(tasks, list):
        raise RequestError('the request needs "tasks", a list of tasks as Label Studio sends them')
    return [_task(task if isinstance(task, dict) else {}) for task in tasks]


def _task(document: Mapping[str, Any]) -> Task:
    number, data = document.get("id"), document.get("data")
    return Task(number if isinstance(number, int) else 0, data if isinstance(data, dict) else {})


def read_extra_params(value: object) -> dict[str, Any]:
    """Extra parameters of the model's settings: an object, or its JSON as the settings form sends it; else nothing."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return {}
    return value if isinstance(value, dict) else {}
