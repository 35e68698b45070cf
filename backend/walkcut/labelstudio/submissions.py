"""Annotations that were submitted, as webhooks and the API tell of them."""

import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any, Final

from walkcut.errors import RequestError
from walkcut.labelstudio.tasks import Task, read_task

_LARGEST_ID: Final = (1 << 63) - 1


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
        replace(read_task(task), id=parse_id(task)),
        parse_id(annotation),
        parse_timestamp(annotation.get("updated_at")).isoformat(),
        result if isinstance(result, list) else [],
        parent if isinstance(parent, int) else None,
        annotation.get("was_cancelled") is True,
    )


def parse_id(document: object) -> int:
    """The id of a document. Raises `RequestError` for one without, or with one that no database holds."""
    number = document.get("id") if isinstance(document, Mapping) else None
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number <= _LARGEST_ID:
        raise RequestError(f"a document without a number for an id: {reprlib.repr(document)}")
    return number


def parse_ids(documents: object) -> frozenset[int]:
    """The ids of several documents; none where there are no documents. Raises `RequestError` for anything else."""
    if not isinstance(documents, list | None):
        raise RequestError(f"documents with ids are a list, not {type(documents).__name__}")
    return frozenset(map(parse_id, documents or []))


def parse_timestamp(text: object) -> datetime:
    """A time in UTC, from `2026-11-20T08:38:56.976830Z` as Label Studio writes it; raises `RequestError`."""
    try:
        return datetime.fromisoformat(str(text).replace("Z", "+00:00")).astimezone(timezone.utc)
    except (ValueError, OverflowError) as error:
        raise RequestError(
            f"{str(text)[:40]!r} is no time: annotations need updated_at as Label Studio sends it"
        ) from error
