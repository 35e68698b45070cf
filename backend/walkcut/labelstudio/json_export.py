"""Annotations in a JSON export of Label Studio."""

from collections.abc import Mapping, Sequence
from typing import Any

from walkcut.errors import SettingsError

_TaskAnnotation = tuple[int, Mapping[str, Any]]  # a task's id, and one of its annotations
_MAX_LISTED = 8


def select_annotation(document: object, *, task_id: int | None = None, annotation_id: int | None = None) -> list[Any]:
    """Return the result of one annotation in a JSON export: a list of tasks with `annotations`, or one task.

    Without `annotation_id` it is the last updated annotation that was not cancelled. Raises `SettingsError`, which
    lists the candidates, where no annotation matches or those of several tasks do.
    """
    annotations = _annotations(document)
    if not annotations:
        raise SettingsError("the export holds no annotation: annotate a task, and export it as JSON")
    matching = [(task, annotation) for task, annotation in annotations if task_id in {None, task}]
    if annotation_id is None:
        matching = [(task, annotation) for task, annotation in matching if not annotation.get("was_cancelled")]
    else:
        matching = [(task, annotation) for task, annotation in matching if annotation.get("id") == annotation_id]
    if not matching:
        raise SettingsError(f"no such annotation, or a cancelled one: choose one of {_list_ids(annotations)}")
    if len({task for task, _ in matching}) > 1:
        raise SettingsError(f"there are several tasks: choose one of {_list_ids(matching)}")
    _, newest = max(matching, key=lambda pair: str(pair[1].get("updated_at") or ""))
    return list(newest["result"])


def _annotations(document: object) -> list[_TaskAnnotation]:
    """Return all annotations of an export, with the ids of their tasks."""
    tasks = document if isinstance(document, list) else [document]
    return [
        (task["id"], annotation)
        for task in tasks
        if isinstance(task, dict) and isinstance(task.get("id"), int) and isinstance(task.get("annotations"), list)
        for annotation in task["annotations"]
        if isinstance(annotation, dict) and isinstance(annotation.get("result"), list)
    ]


def _list_ids(annotations: Sequence[_TaskAnnotation]) -> str:
    rows = [
        f"annotation {annotation.get('id')} of task {task}{' (cancelled)' * bool(annotation.get('was_cancelled'))}"
        for task, annotation in annotations[:_MAX_LISTED]
    ]
    omitted = len(annotations) - len(rows)
    return ", ".join(rows) + (f" and {omitted} more" if omitted else "")
