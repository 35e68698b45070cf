"""Submitted annotations, from documents of webhooks or of the API."""

import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any, Final

from walkcut.errors import RequestError
from walkcut.labelstudio.tasks import Task, read_task

_MAX_ID: Final = (1 << 63) - 1  # what a database holds


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


def read_submission(task: object, annotation: object) -> Submission:
    """Return a submission from the documents of its task and its annotation. Raises `RequestError` for others."""
    if not isinstance(task, Mapping) or not isinstance(annotation, Mapping):
        raise RequestError(
            "an event needs the documents of a task and of an annotation: switch on the webhook's payload"
        )
    parent, result = annotation.get("parent_prediction"), annotation.get("result")
    return Submission(
        replace(read_task(task), id=parse_id(task)),
        parse_id(annotation),
        parse_timestamp(annotation.get("updated_at")).isoformat(),
        result if isinstance(result, list) else [],
        parent if isinstance(parent, int) else None,
        annotation.get("was_cancelled") is True,
    )


def parse_id(document: object) -> int:
    """Return the id of a document. Raises `RequestError` without an id from 0 to 2⁶³ - 1."""
    identity = document.get("id") if isinstance(document, Mapping) else None
    if not isinstance(identity, int) or isinstance(identity, bool) or not 0 <= identity <= _MAX_ID:
        raise RequestError(f"a document needs a number as its id: {reprlib.repr(document)}")
    return identity


def parse_ids(documents: object) -> frozenset[int]:
    """Return the ids of a list of documents, empty for None. Raises `RequestError` for anything else."""
    if not isinstance(documents, list | None):
        raise RequestError(f"documents must be a list, not {type(documents).__name__}")
    return frozenset(map(parse_id, documents or []))


def parse_timestamp(text: object) -> datetime:
    """Return a time in UTC from a text such as `2026-11-20T08:38:56.976830Z`. Raises `RequestError` for others."""
    try:
        return datetime.fromisoformat(str(text).replace("Z", "+00:00")).astimezone(timezone.utc)
    except (ValueError, OverflowError) as error:
        raise RequestError(
            f"{str(text)[:40]!r} is not a time: annotations need updated_at as Label Studio sends it"
        ) from error
