"""Events, setups and feedback of Label Studio projects, as rows."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from walkcut.storage.database import open_database, transaction
from walkcut.storage.tables import EVENTS, FEEDBACK, FEEDBACK_LABELS, PROJECTS

# Annotations that a project learns from: more change little, and cost time and memory.
_MAX_LATEST, _MAX_LATEST_PER_LABEL = 300, 100

_INSERT: dict[str, Callable[[sa.Table], sqlite.Insert | postgresql.Insert]] = {
    "sqlite": sqlite.insert,  # these have "on conflict"
    "postgresql": postgresql.insert,
}


@dataclass(frozen=True)
class Event:
    """A webhook call of Label Studio: its action, its project, and its document as received."""

    action: str
    project_id: str
    body: dict[str, Any]


@dataclass(frozen=True)
class FeedbackRow:
    """The feedback of one annotation: when that was changed last, the labels in it, and a document in JSON."""

    project_id: str
    annotation_id: int
    task_id: int
    updated: datetime
    labels: frozenset[str]
    document: dict[str, Any]


@dataclass(frozen=True)
class ProcessedAnnotation:
    """An annotation that has feedback, its task, and the state (time of change) that the feedback is from."""

    annotation_id: int
    task_id: int
    updated: datetime


class ProjectStore:
    """Events, setups and feedback of projects in SQLite or PostgreSQL, safe to share between threads and processes.

    Every write is one transaction, on disk when the call returns. Without a `url` the database is a file in `folder`.
    Raises `SettingsError` for an unusable database; every method raises `StoreError`, and changes nothing, while the
    database is unavailable.
    """

    def __init__(self, folder: Path, url: str = "") -> None:
        self._engine = open_database(folder, url)
        self._insert = _INSERT[self._engine.dialect.name]

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def enqueue(self, event: Event) -> None:
        """Save an event as pending."""
        self._execute(EVENTS.insert().values(received=datetime.now(timezone.utc), **vars(event)))

    def pending_ids(self) -> list[int]:
        """Return the ids of the pending events, oldest first."""
        return self._column(sa.select(EVENTS.c.id).where(sa.not_(EVENTS.c.done)).order_by(EVENTS.c.id))

    def event(self, event_id: int) -> Event:
        """Return an event by its id."""
        columns = EVENTS.c.action, EVENTS.c.project_id, EVENTS.c.body
        (row,) = self._rows(sa.select(*columns).where(EVENTS.c.id == event_id))
        return Event(*row)

    def mark_done(self, event_id: int) -> None:
        """Mark an event as done, and delete its body, which often takes megabytes."""
        self._execute(EVENTS.update().where(EVENTS.c.id == event_id).values(done=True, body={}))

    def save_setup(self, project_id: str, label_config: str, extra_params: dict[str, Any]) -> None:
        """Save a set-up; nothing is written if it is unchanged, as most of Label Studio's frequent calls are."""
        setup = {"label_config": label_config, "extra_params": extra_params}
        if setup != {"label_config": self.label_config(project_id), "extra_params": self.extra_params(project_id)}:
            self._save_project(project_id, setup)

    def label_config(self, project_id: str) -> str:
        """Return the labelling config of the last set-up; empty before the first."""
        return self._project(project_id, "label_config", default="")

    def extra_params(self, project_id: str) -> dict[str, Any]:
        """Return the extra parameters of the last set-up, the only call that has them; empty before the first."""
        return self._project(project_id, "extra_params", default={})

    def learning(self, project_id: str) -> bool:
        """Return whether the project learns from annotations, as it does unless that was switched off."""
        return self._project(project_id, "learning", default=True)

    def set_learning(self, project_id: str, *, enabled: bool) -> None:
        """Switch learning on or off for a project."""
        self._save_project(project_id, {"learning": enabled})

    def projects(self) -> list[str]:
        """Return the ids of all projects that were set up."""
        return self._column(sa.select(PROJECTS.c.project_id).order_by(PROJECTS.c.project_id))

    def save_feedback(self, row: FeedbackRow) -> None:
        """Save an annotation's feedback in place of that from an earlier state; that from a later state stays.

        Disabled feedback stays disabled until its annotation changes.
        """
        key = {"project_id": row.project_id, "annotation_id": row.annotation_id}
        insert = self._insert(FEEDBACK).values(
            **key, task_id=row.task_id, updated=row.updated, disabled=False, document=row.document
        )
        new, old = insert.excluded, FEEDBACK.c
        keep = insert.on_conflict_do_update(
            index_elements=[old.project_id, old.annotation_id],
            set_={name: new[name] for name in ("task_id", "updated", "document")}
            | {"disabled": sa.and_(old.disabled, new.updated == old.updated)},
            where=new.updated >= old.updated,
        ).returning(old.annotation_id)
        labels = [{**key, "label": label} for label in {_label_key(label) for label in row.labels}]
        with transaction(self._engine) as connection:
            if connection.execute(keep).first() is not None:
                connection.execute(_DELETE_LABELS, key)
                if labels:
                    connection.execute(FEEDBACK_LABELS.insert(), labels)

    def disable_feedback(self, project_id: str, annotation_id: int) -> bool:
        """Disable an annotation's feedback until the annotation changes; return whether there was any enabled."""
        return self._disable(_is_of(project_id, annotation_id)) > 0

    def reset(self, project_id: str) -> int:
        """Disable all feedback of a project, and return the number of annotations that it was from."""
        return self._disable(FEEDBACK.c.project_id == project_id)

    def delete_feedback(self, project_id: str, annotation_ids: Collection[int]) -> None:
        """Delete the feedback of annotations that no longer exist."""
        keys = [{"project_id": project_id, "annotation_id": annotation_id} for annotation_id in annotation_ids]
        with transaction(self._engine) as connection:
            for delete in (_DELETE_LABELS, _DELETE_FEEDBACK) if keys else ():
                connection.execute(delete, keys)

    def has_feedback(self, project_id: str, annotation_id: int) -> bool:
        """Return whether an annotation has feedback, disabled or not."""
        return bool(self._column(sa.select(FEEDBACK.c.annotation_id).where(_is_of(project_id, annotation_id))))

    def revision(self, project_id: str) -> tuple[Any, ...]:
        """Return a value that changes whenever a project's enabled feedback does; fast."""
        sums = sa.func.count(), sa.func.sum(FEEDBACK.c.annotation_id), sa.func.max(FEEDBACK.c.updated)
        enabled = (FEEDBACK.c.project_id == project_id) & sa.not_(FEEDBACK.c.disabled)
        row: tuple[Any, ...] = self._rows(sa.select(*sums).where(enabled))[0]
        return row

    def processed(self, project_id: str) -> list[ProcessedAnnotation]:
        """Return the annotations that have feedback, disabled or not."""
        columns = FEEDBACK.c.annotation_id, FEEDBACK.c.task_id, FEEDBACK.c.updated
        rows = self._rows(sa.select(*columns).where(FEEDBACK.c.project_id == project_id))
        return [ProcessedAnnotation(annotation_id, task_id, _in_utc(time)) for annotation_id, task_id, time in rows]

    def feedback(self, project_id: str) -> list[dict[str, Any]]:
        """Return the enabled documents of a project's latest annotations and of the latest with each label, by id."""
        enabled = (FEEDBACK.c.project_id == project_id) & sa.not_(FEEDBACK.c.disabled)
        latest = sa.select(FEEDBACK.c.annotation_id).where(enabled).order_by(FEEDBACK.c.annotation_id.desc())
        chosen = sa.or_(
            FEEDBACK.c.annotation_id.in_(latest.limit(_MAX_LATEST)),
            FEEDBACK.c.annotation_id.in_(_latest_per_label(enabled)),
        )
        return [document for document, _ in self._documents(enabled & chosen)]

    def all_feedback(self, project_id: str) -> list[tuple[dict[str, Any], bool]]:
        """Return all documents of a project, by annotation id, each with whether it is disabled."""
        return self._documents(FEEDBACK.c.project_id == project_id)

    def _rows(self, query: sa.Executable) -> list[Any]:
        with transaction(self._engine) as connection:
            return [tuple(row) for row in connection.execute(query)]

    def _column(self, query: sa.Executable) -> list[Any]:
        return [value for (value,) in self._rows(query)]

    def _execute(self, statement: sa.UpdateBase) -> int:
        """Execute a statement, and return the number of its rows."""
        with transaction(self._engine) as connection:
            return connection.execute(statement).rowcount

    def _project(self, project_id: str, column: str, *, default: Any) -> Any:
        values = self._column(sa.select(PROJECTS.c[column]).where(PROJECTS.c.project_id == project_id))
        return values[0] if values else default

    def _save_project(self, project_id: str, values: dict[str, Any]) -> None:
        row = self._insert(PROJECTS).values(project_id=project_id, **values)
        self._execute(row.on_conflict_do_update(index_elements=[PROJECTS.c.project_id], set_=values))

    def _disable(self, condition: sa.ColumnElement[bool]) -> int:
        return self._execute(FEEDBACK.update().where(condition, sa.not_(FEEDBACK.c.disabled)).values(disabled=True))

    def _documents(self, condition: sa.ColumnElement[bool]) -> list[tuple[dict[str, Any], bool]]:
        query = sa.select(FEEDBACK.c.document, FEEDBACK.c.disabled).where(condition).order_by(FEEDBACK.c.annotation_id)
        return self._rows(query)


def _is_of(project_id: str, annotation_id: int) -> sa.ColumnElement[bool]:
    return (FEEDBACK.c.project_id == project_id) & (FEEDBACK.c.annotation_id == annotation_id)


def _latest_per_label(enabled: sa.ColumnElement[bool]) -> sa.Select[Any]:
    label = FEEDBACK_LABELS.c
    rank = sa.func.row_number().over(partition_by=label.label, order_by=label.annotation_id.desc()).label("rank")
    same = (label.project_id == FEEDBACK.c.project_id) & (label.annotation_id == FEEDBACK.c.annotation_id)
    ranked = sa.select(label.annotation_id, rank).join_from(FEEDBACK_LABELS, FEEDBACK, same).where(enabled).subquery()
    return sa.select(ranked.c.annotation_id).where(ranked.c.rank <= _MAX_LATEST_PER_LABEL)


def _delete(table: sa.Table) -> sa.Delete:
    key = (table.c.project_id == sa.bindparam("project_id"), table.c.annotation_id == sa.bindparam("annotation_id"))
    return table.delete().where(*key)


_DELETE_FEEDBACK, _DELETE_LABELS = _delete(FEEDBACK), _delete(FEEDBACK_LABELS)


def _label_key(label: str) -> str:
    """Return a label as its column holds it: ASCII, at most 64 characters; labels with the same key count as one."""
    return label.encode("unicode_escape")[:64].decode()


def _in_utc(moment: datetime) -> datetime:
    """Return a time with its zone, which SQLite does not keep."""
    return moment.replace(tzinfo=timezone.utc) if moment.tzinfo is None else moment
