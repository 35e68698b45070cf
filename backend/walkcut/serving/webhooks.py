"""Webhook events of Label Studio, saved as the state of annotations that the feedback worker learns from."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

from walkcut.errors import RequestError, StoreError, problem_text
from walkcut.labelstudio.tasks import parse_id, parse_ids, parse_project_created, parse_timestamp, read_submission
from walkcut.storage import AnnotationRow, ProjectStore

log = logging.getLogger(__name__)


def save_event(
    store: ProjectStore, action: str, project_id: str, body: Mapping[str, Any], *, learning: bool = True
) -> bool:
    """Save what an event tells, and return whether it is one that walkcut uses.

    Unless `learning`, only deletions are carried out. Label Studio waits one second, so nothing is learned here.
    Raises `RequestError` for an event that names no annotation, no project, or one of another Label Studio, and
    `StoreError`.
    """
    save = _SAVERS.get(action)
    if save is None or not (learning or _is_deletion(save, body)):
        return False
    if not project_id:
        raise RequestError(
            "an event needs the id of its project: switch on *Send payload* of the webhook in Label Studio"
        )
    store.claim(project_id, parse_project_created(body.get("project")))
    save(store, project_id, body)
    return True


def save_annotation(
    store: ProjectStore, project_id: str, task: object, annotation: object, save: Callable[[AnnotationRow], None]
) -> bool:
    """Save an annotation from its documents, and delete one of a skipped task; return whether that was possible.

    An annotation whose documents cannot be read or saved is set aside with the reason. Raises `RequestError` for one
    without an id, and `StoreError`.
    """
    annotation_id = parse_id(annotation)
    if isinstance(annotation, Mapping) and is_skipped(annotation):
        store.annotations.delete(project_id, {annotation_id})
        return True
    try:
        submission = read_submission(task, annotation)
        updated = parse_timestamp(submission.updated_at)
        save(AnnotationRow(project_id, annotation_id, submission.task.id, updated, submission.to_json()))
    except StoreError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is, the next annotation is saved
        log.warning("annotation %d in project %s cannot be read: %s", annotation_id, project_id, error)
        store.annotations.save_unreadable(project_id, annotation_id, _task_id(task), problem_text(error))
        return False
    return True


def _task_id(task: object) -> int:
    """Return the id of a task's document, 0 without one."""
    try:
        return parse_id(task)
    except RequestError:
        return 0


def _save_label_config(store: ProjectStore, project_id: str, project: object) -> None:
    """Save the labelling config in an event's document of the project, if there is one."""
    config = project.get("label_config") if isinstance(project, Mapping) else None
    if isinstance(config, str) and config:
        store.save_setup(project_id, config, store.extra_params(project_id))


def _save_submitted(store: ProjectStore, project_id: str, body: Mapping[str, Any]) -> None:
    _save_label_config(store, project_id, body.get("project"))
    save_annotation(store, project_id, body.get("task"), body.get("annotation"), store.annotations.save)


def _delete_annotations(store: ProjectStore, project_id: str, body: Mapping[str, Any]) -> None:
    store.annotations.delete(project_id, parse_ids(body.get("annotations")))


def _delete_tasks(store: ProjectStore, project_id: str, body: Mapping[str, Any]) -> None:
    store.annotations.delete_tasks(project_id, parse_ids(body.get("tasks")))


def _delete_project(store: ProjectStore, project_id: str, _body: Mapping[str, Any]) -> None:
    store.forget(project_id)


def _is_deletion(save: "_Saver", body: Mapping[str, Any]) -> bool:
    annotation = body.get("annotation")
    return save is not _save_submitted or (isinstance(annotation, Mapping) and is_skipped(annotation))


def is_skipped(annotation: Mapping[str, Any]) -> bool:
    """Return whether an annotation's document says that its annotator skipped the task."""
    return annotation.get("was_cancelled") is True


_Saver = Callable[[ProjectStore, str, Mapping[str, Any]], None]
_SAVERS: Mapping[str, _Saver] = {
    "ANNOTATION_CREATED": _save_submitted,
    "ANNOTATION_UPDATED": _save_submitted,
    "ANNOTATIONS_DELETED": _delete_annotations,
    "TASKS_DELETED": _delete_tasks,
    "PROJECT_DELETED": _delete_project,
}
