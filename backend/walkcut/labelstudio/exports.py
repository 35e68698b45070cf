"""The annotation that a JSON export of Label Studio holds, or the one of several that is meant."""

from collections.abc import Mapping, Sequence
from typing import Any

from walkcut.errors import SettingsError

_Found = tuple[object, Mapping[str, Any]]  # a task's id, and one of its annotations


def select_annotation(document: object, *, task: int | None = None, annotation: int | None = None) -> list[Any]:
    """The result of one annotation in a JSON export, which is a list of tasks with `annotations`, or one task.

    Of a task's annotations it is the one with the id `annotation`, else the one updated last of those that were not
    cancelled. Raises `SettingsError`, which lists what there is, where there is none or several tasks are left.
    """
    everything = _annotations(document)
    if not everything:
        raise SettingsError("the export holds no annotation: annotate a task, and export it as JSON")
    found = [(number, one) for number, one in everything if task in {None, number} and _matches(one, annotation)]
    if not found:
        raise SettingsError(f"no such annotation, or a cancelled one: choose among {_listed(everything)}")
    if len({number for number, _ in found}) > 1:
        raise SettingsError(f"there are several tasks: choose one of {_listed(found)}")
    _, newest = max(found, key=lambda pair: str(pair[1].get("updated_at") or ""))
    return list(newest["result"])


def _matches(one: Mapping[str, Any], annotation: int | None) -> bool:
    """Whether an annotation is the one with this id, or without an id, one that was not cancelled."""
    return not one.get("was_cancelled") if annotation is None else one.get("id") == annotation


def _annotations(document: object) -> list[_Found]:
    """All annotations of an export, with the ids of their tasks."""
    tasks = document if isinstance(document, list) else [document]
    return [
        (task["id"], one)
        for task in tasks
        if isinstance(task, dict) and isinstance(task.get("id"), int) and isinstance(task.get("annotations"), list)
        for one in task["annotations"]
        if isinstance(one, dict) and isinstance(one.get("result"), list)
    ]


def _listed(found: Sequence[_Found]) -> str:
    """Tasks with their annotations, the first few."""
    rows = [
        f"annotation {one.get('id')} of task {number}" + (" (cancelled)" if one.get("was_cancelled") else "")
        for number, one in found
    ]
    return ", ".join(rows[:8]) + (f" and {len(rows) - 8} more" if len(rows) > 8 else "")
