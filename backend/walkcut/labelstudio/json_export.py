"""Annotations in documents of Label Studio: JSON exports, files of a target storage, answers of the API."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from walkcut.errors import SettingsError
from walkcut.labelstudio.results import result_items
from walkcut.labelstudio.tags import PROMPTS

_TaskAnnotation = tuple[int | None, Mapping[str, Any]]  # a task's id if it is known, and one of its annotations
_MAX_LISTED = 8
_LISTS = ("annotations", "completions", "tasks", "results")  # in a task, and in an answer of the API
_SHAPES = (
    "brushlabels",
    "polygonlabels",
    "rectanglelabels",
    "ellipselabels",
    "bitmasklabels",
    "vectorlabels",
    "keypointlabels",
)


def select_annotation(document: object, *, task_id: int | None = None, annotation_id: int | None = None) -> list[Any]:
    """Return the result of one annotation in a document: of tasks, annotations, or tasks as JSON-MIN, one or a list.

    Without `annotation_id` it is the last updated annotation that was not cancelled. Raises `SettingsError`, which
    lists the candidates, where no annotation matches or those of several tasks do. Items without an id get one.
    """
    annotations = list(_annotations(document, None))
    if not annotations:
        raise SettingsError(
            "the export holds no annotation: annotate a task, and export it as JSON, or give an annotation of a target "
            "storage or of the API"
        )
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
    return [
        {**item, "id": _region_id(item.get("id"), index)} if isinstance(item, dict) else item
        for index, item in enumerate(newest["result"], 1)
    ]


def _region_id(identity: object, index: int) -> str:
    return str(identity) if isinstance(identity, str | int) and identity != "" else f"number {index}"


def region_labels(result: object) -> dict[str, tuple[str, ...]]:
    """Return all labels of each region by its id, those of further items with the same id among them; no prompts."""
    labels: dict[str, tuple[str, ...]] = {}
    for item in result_items(result):
        names = [names for kind, names in item["value"].items() if kind.endswith("labels") and isinstance(names, list)]
        named = (name for group in names for name in group if isinstance(name, str) and name not in PROMPTS)
        identity = item.get("id")
        if isinstance(identity, str):
            labels[identity] = tuple(dict.fromkeys([*labels.get(identity, ()), *named]))
    return labels


def pages(result: Sequence[object]) -> list[int]:
    """Return the pages with regions, counted from 1: Label Studio's `item_index` is the page, counted from 0."""
    return sorted({_page(item) for item in result_items(result) if _shape(item["value"])})


def items_of_page(result: Sequence[object], page: int) -> list[object]:
    """Return the items of a page, counted from 1."""
    return [item for item in result if isinstance(item, dict) and _page(item) == page]


def _page(item: Mapping[str, Any]) -> int:
    index = item.get("item_index")
    return index + 1 if isinstance(index, int) else 1


def _annotations(document: object, task_id: int | None) -> Iterator[_TaskAnnotation]:
    """Yield all annotations in a document; `task_id` is that of the task around it."""
    if isinstance(document, list):
        if any(map(_is_result_item, document)):
            yield task_id, {"result": document}
        for element in document:
            yield from _annotations(element, task_id) if isinstance(element, dict) else ()
    elif isinstance(document, dict):
        yield from _annotations_in_object(document, task_id)


def _annotations_in_object(document: Mapping[str, Any], task_id: int | None) -> Iterator[_TaskAnnotation]:
    task, identity = _task_id(document.get("task")), _task_id(document.get("id"))
    if isinstance(document.get("result"), list):
        yield task_id if task is None else task, document
    elif isinstance(document.get("annotation"), dict):  # an event of a webhook
        yield from _annotations(document["annotation"], task)
    elif lists := [document[name] for name in _LISTS if isinstance(document.get(name), list)]:
        for elements in lists:
            yield from _annotations(elements, identity)
    elif "annotation_id" in document:
        yield identity, _from_json_min(document)


def _is_result_item(element: object) -> bool:
    return isinstance(element, dict) and isinstance(element.get("type"), str) and isinstance(element.get("value"), dict)


def _task_id(document: object) -> int | None:
    """Return the id of a task, from the id or from the task's document."""
    identity = document.get("id") if isinstance(document, dict) else document
    return identity if isinstance(identity, int) else None


def _from_json_min(task: Mapping[str, Any]) -> dict[str, Any]:
    """Return the annotation of a task as JSON-MIN, which leaves out the names of images, and types and ids of regions.

    Raises `SettingsError` for a task with a list of images, as it does not say which of them a region is on.
    """
    result = []
    for name, values in ((name, field) for name, field in task.items() if isinstance(field, list)):
        if len(values) > 1 and all(isinstance(value, str) and "/" in value for value in values):
            raise SettingsError(f"JSON-MIN does not say which image of {name} a region is on: export as JSON")
        for index, value in enumerate(values, 1):
            if isinstance(value, dict) and (kind := _shape(value)):
                sizes = {key: value[key] for key in ("original_width", "original_height") if key in value}
                names = {"id": f"{name} {index}", "from_name": name, "to_name": "", "type": kind}
                result.append({**names, **sizes, "value": value})
    return {"id": task["annotation_id"], "updated_at": task.get("updated_at"), "result": result}


def _shape(value: Mapping[str, Any]) -> str:
    """Return the type of a region by its value, empty for anything else."""
    return next((kind for kind in _SHAPES if kind in value), "brush" if "rle" in value else "")


def _list_ids(annotations: Sequence[_TaskAnnotation]) -> str:
    rows = [
        f"annotation {annotation.get('id')} of task {'?' if task is None else task}"
        f"{' (cancelled)' * bool(annotation.get('was_cancelled'))}"
        for task, annotation in annotations[:_MAX_LISTED]
    ]
    omitted = len(annotations) - len(rows)
    return ", ".join(rows) + (f" and {omitted} more" if omitted else "")
