"""A project in a fake Label Studio: tasks, predictions, and which tasks were annotated or skipped."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import count
from typing import Any

from walkcut.errors import LabelStudioError
from walkcut.labelstudio.client import LabelStudioClient

Json = dict[str, Any]


class FakeLabelStudio(LabelStudioClient):
    """Holds tasks (`id` and `data`) and their predictions; requests after `max_requests` fail."""

    def __init__(self, tasks: Sequence[Json], config: str = "", max_requests: int = 99) -> None:
        self.tasks = {task["id"]: task for task in tasks}
        self.config, self.max_requests, self.chosen = config, max_requests, ""
        self.annotated: set[int] = set()
        self.skipped: set[int] = set()
        self.uploads: list[tuple[str, bytes]] = []
        self.requests: list[list[Mapping[str, Any]]] = []
        self.stored: dict[int, Mapping[str, Any]] = {}
        self._ids = count(1)

    def versions_of(self, task: int) -> list[str]:
        """Return the versions of a task's predictions, in the order of their ids."""
        return [prediction["model_version"] for prediction in self.stored.values() if prediction["task"] == task]

    def store(self, predictions: Sequence[Mapping[str, Any]]) -> None:
        """Store predictions."""
        self.stored.update(zip(self._ids, predictions, strict=False))

    def label_config(self, project: str) -> str:
        return self.config

    def chosen_version(self, project: str) -> str:
        return self.chosen

    def annotated_count(self, project: str) -> int:
        return len(self.annotated)

    def unannotated_tasks(self, project: str) -> Iterator[tuple[Json, frozenset[str]]]:
        return self._with_versions(self.tasks.keys() - self.annotated)

    def tasks_neither_annotated_nor_skipped(
        self, project: str, task_ids: Collection[int] | None = None
    ) -> Iterator[tuple[Json, frozenset[str]]]:
        untouched = self.tasks.keys() - self.annotated - self.skipped
        return self._with_versions(untouched if task_ids is None else untouched & set(task_ids))

    def versions(self, project: str, task_ids: Collection[int]) -> dict[int, frozenset[str]]:
        return {task["id"]: versions for task, versions in self._with_versions(self.tasks.keys() & set(task_ids))}

    def predictions(self, task_id: int) -> dict[int, str]:
        return {
            prediction_id: prediction["model_version"]
            for prediction_id, prediction in self.stored.items()
            if prediction["task"] == task_id
        }

    def add_predictions(self, project: str, predictions: Sequence[Mapping[str, Any]]) -> None:
        if len(self.requests) == self.max_requests:
            raise LabelStudioError("Label Studio is unavailable")
        self.requests.append(list(predictions))
        self.store(predictions)

    def all_tasks(self, project: str) -> Iterator[Json]:
        return iter(list(self.tasks.values()))

    def upload_file(self, project: str, name: str, content: bytes) -> str:
        self.uploads.append((name, content))
        return f"/data/upload/{project}/{len(self.uploads)}-{name}"

    def add_task(self, project: str, data: Mapping[str, Any]) -> None:
        task_id = max(self.tasks, default=0) + 1
        self.tasks[task_id] = {"id": task_id, "data": dict(data)}

    def delete_prediction(self, prediction_id: int) -> None:
        del self.stored[prediction_id]

    def _with_versions(self, task_ids: Collection[int]) -> Iterator[tuple[Json, frozenset[str]]]:
        for task_id in sorted(task_ids):
            yield self.tasks[task_id], frozenset(self.versions_of(task_id))
