"""A stand-in for a project in Label Studio: tasks, predictions, and which tasks annotators were at."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import count
from typing import Any

from walkcut.errors import LabelStudioError
from walkcut.labelstudio.client import LabelStudioClient

Json = dict[str, Any]


class HeldStudio(LabelStudioClient):
    """Holds tasks (`id` and `data`) and what it is given, in requests; refuses those after `patience`."""

    def __init__(self, tasks: Sequence[Json], config: str = "", patience: int = 99) -> None:
        self.tasks = {task["id"]: task for task in tasks}
        self.config, self.patience, self.chosen = config, patience, ""
        self.annotated: set[int] = set()
        self.skipped: set[int] = set()
        self.requests: list[list[Mapping[str, Any]]] = []
        self.held: dict[int, Mapping[str, Any]] = {}
        self._numbers = count(1)

    def of_task(self, task: int) -> list[str]:
        """The versions of a task's predictions, in the order in which they came."""
        return [each["model_version"] for each in self.held.values() if each["task"] == task]

    def take(self, predictions: Sequence[Mapping[str, Any]]) -> None:
        """Hold predictions."""
        self.held.update(zip(self._numbers, predictions, strict=False))

    def label_config(self, project: str) -> str:
        return self.config

    def chosen_version(self, project: str) -> str:
        return self.chosen

    def unannotated_tasks(self, project: str) -> Iterator[tuple[Json, frozenset[str]]]:
        return self._listed(self.tasks.keys() - self.annotated)

    def tasks_neither_annotated_nor_skipped(
        self, project: str, task_ids: Collection[int] | None = None
    ) -> Iterator[tuple[Json, frozenset[str]]]:
        free = self.tasks.keys() - self.annotated - self.skipped
        return self._listed(free if task_ids is None else free & set(task_ids))

    def versions(self, project: str, task_ids: Collection[int]) -> dict[int, frozenset[str]]:
        return {task["id"]: versions for task, versions in self._listed(self.tasks.keys() & set(task_ids))}

    def predictions(self, task_id: int) -> dict[int, str]:
        return {number: each["model_version"] for number, each in self.held.items() if each["task"] == task_id}

    def add_predictions(self, project: str, predictions: Sequence[Mapping[str, Any]]) -> None:
        if len(self.requests) == self.patience:
            raise LabelStudioError("Label Studio is away")
        self.requests.append(list(predictions))
        self.take(predictions)

    def delete_prediction(self, prediction_id: int) -> None:
        del self.held[prediction_id]

    def _listed(self, numbers: Collection[int]) -> Iterator[tuple[Json, frozenset[str]]]:
        for number in sorted(numbers):
            yield self.tasks[number], frozenset(self.of_task(number))
