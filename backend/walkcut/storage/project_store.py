"""What Label Studio told of projects, and what their annotations taught."""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Delete, Table, and_, bindparam, func, not_, or_, select
from sqlalchemy.dialects import postgresql, sqlite

from walkcut.labelstudio import parse_timestamp
from walkcut.learning.examples import AnnotationFeedback
from walkcut.storage.database import EVENTS, LESSON_LABELS, LESSONS, PROJECTS, open_database, transaction

_LATEST, _LATEST_OF_LABEL = 300, 100  # annotations that teach: more change little, and take time and memory

_INSERT: dict[str, Callable[[Table], sqlite.Insert | postgresql.Insert]] = {
    "sqlite": sqlite.insert,  # which knows what to do on conflict
    "postgresql": postgresql.insert,
}


@dataclass(frozen=True)
class Event:
    """A webhook call of Label Studio's: what happened in which project, and the document as it came."""

    action: str
    project: str
    body: dict[str, Any]


@dataclass(frozen=True)
class ProcessedAnnotation:
    """Which state of an annotation, of which task, has taught something."""

    annotation: int
    task: int
    updated: datetime


def project_id(project: object) -> str:
    """A project's number as text, its name everywhere in walkcut; empty where none is named.

    Label Studio sends the number alone, or with the time of its creation (`"4.1795164114"`), or the project's document.
    """
    number = project.get("id") if isinstance(project, Mapping) else project
    found = re.fullmatch(r"0*([0-9]{1,18})(\.[0-9]*)?", str(number))
    return found[1] if found else ""


class ProjectStore:
    """Events, parameters and lessons of projects, in SQLite or PostgreSQL.

    Every write is one transaction, on disk when the call returns. Safe to share between threads and processes. Without
    a `url` the database is a file in `folder`. Raises `SettingsError` for a database that cannot be used; every method
    raises `StoreError` for one that cannot be used now, and does then nothing.
    """

    def __init__(self, folder: Path, url: str = "") -> None:
        self._engine = open_database(folder, url)
        self._insert = _INSERT[self._engine.dialect.name]

    def close(self) -> None:
        """Let go of the database."""
        self._engine.dispose()

    def enqueue(self, event: Event) -> None:
        """Keep an event until it is finished."""
        row = {"received": datetime.now(timezone.utc), **vars(event)}
        with transaction(self._engine) as connection:
            connection.execute(EVENTS.insert(), row)

    def pending_ids(self) -> list[int]:
        """The numbers of the events that are not finished, the oldest first."""
        query = select(EVENTS.c.id).where(not_(EVENTS.c.finished)).order_by(EVENTS.c.id)
        with transaction(self._engine) as connection:
            return list(connection.execute(query).scalars())

    def event(self, number: int) -> Event:
        """An event by its number."""
        query = select(EVENTS.c.action, EVENTS.c.project, EVENTS.c.body).where(EVENTS.c.id == number)
        with transaction(self._engine) as connection:
            return Event(*connection.execute(query).one())

    def mark_done(self, number: int) -> None:
        """Take an event for done: what it was stays, its body, often megabytes, does not."""
        with transaction(self._engine) as connection:
            connection.execute(EVENTS.update().where(EVENTS.c.id == number).values(finished=True, body={}))

    def events(self, project: str) -> list[Event]:
        """A project's events in the order of arrival; finished ones have an empty body."""
        query = select(EVENTS.c.action, EVENTS.c.project, EVENTS.c.body).where(EVENTS.c.project == project)
        with transaction(self._engine) as connection:
            return [Event(*row) for row in connection.execute(query.order_by(EVENTS.c.id))]

    def save_setup(self, project: str, label_config: str, extra_params: dict[str, Any]) -> None:
        """Keep what Label Studio sends at set-up, which is often and mostly the same: then nothing is written."""
        told = {"label_config": label_config, "extra_params": extra_params}
        if told != {"label_config": self.label_config(project), "extra_params": self.extra_params(project)}:
            self._keep_project(project, told)

    def label_config(self, project: str) -> str:
        """The labelling config of the last set-up; empty before."""
        return self._project(project, "label_config", otherwise="")

    def extra_params(self, project: str) -> dict[str, Any]:
        """The extra parameters of the last set-up, which Label Studio sends then alone; empty before."""
        return self._project(project, "extra_params", otherwise={})

    def learning(self, project: str) -> bool:
        """Whether the project's annotations shall teach: they shall where nobody said otherwise."""
        return self._project(project, "learning", otherwise=True)

    def set_learning(self, project: str, *, on: bool) -> None:
        """Say whether the project's annotations shall teach."""
        self._keep_project(project, {"learning": on})

    def projects(self) -> list[str]:
        """All projects that were set up."""
        with transaction(self._engine) as connection:
            return list(connection.execute(select(PROJECTS.c.project).order_by(PROJECTS.c.project)).scalars())

    def _project(self, project: str, column: str, *, otherwise: Any) -> Any:
        query = select(PROJECTS.c[column]).where(PROJECTS.c.project == project)
        with transaction(self._engine) as connection:
            found = connection.execute(query).one_or_none()
        return found[0] if found else otherwise

    def _keep_project(self, project: str, values: dict[str, Any]) -> None:
        row = self._insert(PROJECTS).values(project=project, **values)
        with transaction(self._engine) as connection:
            connection.execute(row.on_conflict_do_update(index_elements=[PROJECTS.c.project], set_=values))

    def save_feedback(self, lesson: AnnotationFeedback) -> None:
        """Keep what an annotation teaches, in place of what an earlier state of it taught; a later state's stays.

        An undone lesson stays undone until its annotation changes. Raises `RequestError` for an `updated_at` that is no
        time.
        """
        which = {"project": lesson.project, "annotation": lesson.annotation}
        row = self._insert(LESSONS).values(
            **which,
            task=lesson.task,
            updated=parse_timestamp(lesson.updated_at),
            disabled=False,
            lesson=lesson.to_json(),
        )
        new, old = row.excluded, LESSONS.c
        values = {
            "task": new.task,
            "updated": new.updated,
            "lesson": new.lesson,
            "disabled": and_(old.disabled, new.updated == old.updated),
        }
        keys, not_older = [old.project, old.annotation], new.updated >= old.updated
        keep = row.on_conflict_do_update(index_elements=keys, set_=values, where=not_older).returning(old.annotation)
        labels = [which | {"label": label} for label in {_label_key(example.label) for example in lesson.examples}]
        with transaction(self._engine) as connection:
            if connection.execute(keep).first() is not None:
                connection.execute(_DROP_LABELS, which)
                if labels:
                    connection.execute(LESSON_LABELS.insert(), labels)

    def disable_feedback(self, project: str, annotation: int) -> bool:
        """Let an annotation teach no more until it changes; whether it taught."""
        return self._undo((LESSONS.c.project == project) & (LESSONS.c.annotation == annotation)) > 0

    def reset(self, project: str) -> int:
        """Undo all lessons of a project; how many there were."""
        return self._undo(LESSONS.c.project == project)

    def _undo(self, which: ColumnElement[bool]) -> int:
        with transaction(self._engine) as connection:
            return connection.execute(
                LESSONS.update().where(which, not_(LESSONS.c.disabled)).values(disabled=True)
            ).rowcount

    def delete_feedback(self, project: str, annotations: Collection[int]) -> None:
        """Forget the lessons of annotations that are no more."""
        gone = [{"project": project, "annotation": annotation} for annotation in annotations]
        with transaction(self._engine) as connection:
            for drop in (_DROP_LABELS, _DROP_LESSON) if gone else ():
                connection.execute(drop, gone)

    def has_feedback(self, project: str, annotation: int) -> bool:
        """Whether an annotation has taught something, undone or not."""
        query = select(LESSONS.c.annotation).where(LESSONS.c.project == project, LESSONS.c.annotation == annotation)
        with transaction(self._engine) as connection:
            return connection.execute(query).first() is not None

    def revision(self, project: str) -> tuple[Any, ...]:
        """What changes whenever a project's lessons do, and is quickly asked for."""
        counted = func.count(), func.sum(LESSONS.c.annotation), func.max(LESSONS.c.updated)
        query = select(*counted).where(LESSONS.c.project == project, not_(LESSONS.c.disabled))
        with transaction(self._engine) as connection:
            return tuple(connection.execute(query).one())

    def processed(self, project: str) -> list[ProcessedAnnotation]:
        """Which annotations have taught something, undone or not."""
        query = select(LESSONS.c.annotation, LESSONS.c.task, LESSONS.c.updated).where(LESSONS.c.project == project)
        with transaction(self._engine) as connection:
            return [
                ProcessedAnnotation(annotation, task, _in_utc(updated))
                for annotation, task, updated in connection.execute(query)
            ]

    def feedback(self, project: str) -> list[AnnotationFeedback]:
        """What a project's latest annotations teach, and the latest of each label, by annotation, none undone."""
        valid = (LESSONS.c.project == project) & not_(LESSONS.c.disabled)
        latest = select(LESSONS.c.annotation).where(valid).order_by(LESSONS.c.annotation.desc()).limit(_LATEST)
        label = LESSON_LABELS.c
        rank = func.row_number().over(partition_by=label.label, order_by=label.annotation.desc()).label("rank")
        same = (label.project == LESSONS.c.project) & (label.annotation == LESSONS.c.annotation)
        ranked = select(label.annotation, rank).join_from(LESSON_LABELS, LESSONS, same).where(valid).subquery()
        of_labels = select(ranked.c.annotation).where(ranked.c.rank <= _LATEST_OF_LABEL)
        chosen = valid & or_(LESSONS.c.annotation.in_(latest), LESSONS.c.annotation.in_(of_labels))
        return [lesson for lesson, _ in self._read_lessons(chosen)]

    def all_feedback(self, project: str) -> list[tuple[AnnotationFeedback, bool]]:
        """All lessons of a project, by annotation, each with whether it was undone."""
        return self._read_lessons(LESSONS.c.project == project)

    def _read_lessons(self, which: ColumnElement[bool]) -> list[tuple[AnnotationFeedback, bool]]:
        query = select(LESSONS.c.lesson, LESSONS.c.disabled).where(which).order_by(LESSONS.c.annotation)
        with transaction(self._engine) as connection:
            return [
                (AnnotationFeedback.from_json(document), disabled) for document, disabled in connection.execute(query)
            ]


def _drop(table: Table) -> Delete:
    """The rows of an annotation."""
    return table.delete().where(table.c.project == bindparam("project"), table.c.annotation == bindparam("annotation"))


_DROP_LESSON, _DROP_LABELS = _drop(LESSONS), _drop(LESSON_LABELS)


def _label_key(label: str) -> str:
    """What stands for a label where any text and length would not do; those that share it are read together."""
    return label.encode("unicode_escape")[:64].decode()


def _in_utc(moment: datetime) -> datetime:
    """A time as it was kept: SQLite gives it back without its zone."""
    return moment.replace(tzinfo=timezone.utc) if moment.tzinfo is None else moment
