"""Annotations that were submitted, as webhooks and the API tell of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from walkcut.errors import RequestError
from walkcut.labelstudio.tasks import Task, read_task


@dataclass(frozen=True)
class Submission:
    """What an annotator submitted for a task, when it was changed last (UTC, ISO 8601), and from which prediction, if
    any, it was started. A `skipped` one says that nothing shall be annotated."""

    task: Task
    annotation: int
    updated_at: str
    result: Sequence[Any]
    parent_prediction: int | None = None
    skipped: bool = False


def read_submission(task: object, annotation: object) -> Submission:
    """A submission from the documents of its task and its annotation. Raises `RequestError` for what is none."""
    if not isinstance(task, Mapping) or not isinstance(annotation, Mapping):
        raise RequestError("an event needs the documents of a task and of an annotation: let webhooks send payloads")
    parent, result = annotation.get("parent_prediction"), annotation.get("result")
    return Submission(
        read_task(task),
        read_number(annotation),
        read_moment(annotation.get("updated_at")).isoformat(),
        result if isinstance(result, list) else [],
        parent if isinstance(parent, int) else None,
        annotation.get("was_cancelled") is True,
    )


def read_number(document: object) -> int:
    """The id of a document. Raises `RequestError` for one without."""
    number = document.get("id") if isinstance(document, Mapping) else None
    if not isinstance(number, int) or isinstance(number, bool):
        raise RequestError(f"a document without a number for an id: {str(document)[:60]}")
    return number


def read_moment(text: object) -> datetime:
    """A time in UTC, from `2026-11-20T08:38:56.976830Z` as Label Studio writes it; raises `RequestError`."""
    try:
        return datetime.fromisoformat(str(text).replace("Z", "+00:00")).astimezone(timezone.utc)
    except (ValueError, OverflowError) as error:
        raise RequestError(
            f"{str(text)[:40]!r} is no time: annotations need updated_at as Label Studio sends it"
        ) from error
