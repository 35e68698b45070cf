"""What Label Studio told of projects, and what their annotations taught."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Table, and_, func, not_, select
from sqlalchemy.dialects import postgresql, sqlite

from walkcut.labelstudio import read_moment
from walkcut.lessons import Lesson
from walkcut.store.database import EVENTS, LESSONS, PROJECTS, open_database, transaction

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

    def record(self, happened: Event) -> None:
        """Keep an event until it is finished."""
        row = {"received": datetime.now(timezone.utc), **vars(happened)}
        with transaction(self._engine) as connection:
            connection.execute(EVENTS.insert(), row)

    def pending(self) -> list[int]:
        """The numbers of the events that are not finished, the oldest first."""
        query = select(EVENTS.c.id).where(not_(EVENTS.c.finished)).order_by(EVENTS.c.id)
        with transaction(self._engine) as connection:
            return list(connection.execute(query).scalars())

    def event(self, number: int) -> Event:
        """An event by its number."""
        query = select(EVENTS.c.action, EVENTS.c.project, EVENTS.c.body).where(EVENTS.c.id == number)
        with transaction(self._engine) as connection:
            return Event(*connection.execute(query).one())

    def finish(self, number: int) -> None:
        """Take an event for done: what it was stays, its body, often megabytes, does not."""
        with transaction(self._engine) as connection:
            connection.execute(EVENTS.update().where(EVENTS.c.id == number).values(finished=True, body={}))

    def events(self, project: str) -> list[Event]:
        """A project's events in the order of arrival; finished ones have an empty body."""
        query = select(EVENTS.c.action, EVENTS.c.project, EVENTS.c.body).where(EVENTS.c.project == project)
        with transaction(self._engine) as connection:
            return [Event(*row) for row in connection.execute(query.order_by(EVENTS.c.id))]

    def remember_setup(self, project: str, label_config: str, extra_params: dict[str, Any]) -> None:
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

    def keep_lesson(self, lesson: Lesson) -> None:
        """Keep what an annotation teaches, in place of what an earlier state of it taught; a later state's stays.

        An undone lesson stays undone until its annotation changes. Raises `RequestError` for an `updated_at` that is no
        time.
        """
        row = self._insert(LESSONS).values(
            project=lesson.project,
            annotation=lesson.annotation,
            updated=read_moment(lesson.updated_at),
            undone=False,
            lesson=lesson.to_json(),
        )
        new, old = row.excluded, LESSONS.c
        values = {
            "updated": new.updated,
            "lesson": new.lesson,
            "undone": and_(old.undone, new.updated == old.updated),
        }
        keys, not_older = [old.project, old.annotation], new.updated >= old.updated
        with transaction(self._engine) as connection:
            connection.execute(row.on_conflict_do_update(index_elements=keys, set_=values, where=not_older))

    def undo_lesson(self, project: str, annotation: int) -> bool:
        """Let an annotation teach no more until it changes; whether it taught."""
        return self._undo((LESSONS.c.project == project) & (LESSONS.c.annotation == annotation)) > 0

    def reset(self, project: str) -> int:
        """Undo all lessons of a project; how many there were."""
        return self._undo(LESSONS.c.project == project)

    def _undo(self, which: ColumnElement[bool]) -> int:
        with transaction(self._engine) as connection:
            return connection.execute(
                LESSONS.update().where(which, not_(LESSONS.c.undone)).values(undone=True)
            ).rowcount

    def drop_lesson(self, project: str, annotation: int) -> None:
        """Forget the lesson of an annotation that is no more."""
        which = (LESSONS.c.project == project) & (LESSONS.c.annotation == annotation)
        with transaction(self._engine) as connection:
            connection.execute(LESSONS.delete().where(which))

    def has_lesson(self, project: str, annotation: int) -> bool:
        """Whether an annotation has taught something, undone or not."""
        query = select(LESSONS.c.annotation).where(LESSONS.c.project == project, LESSONS.c.annotation == annotation)
        with transaction(self._engine) as connection:
            return connection.execute(query).first() is not None

    def revision(self, project: str) -> tuple[Any, ...]:
        """What changes whenever a project's lessons do, and is quickly asked for."""
        counted = func.count(), func.sum(LESSONS.c.annotation), func.max(LESSONS.c.updated)
        query = select(*counted).where(LESSONS.c.project == project, not_(LESSONS.c.undone))
        with transaction(self._engine) as connection:
            return tuple(connection.execute(query).one())

    def lessons(self, project: str) -> list[Lesson]:
        """What a project's annotations teach, by annotation, without what was undone."""
        return [lesson for lesson, undone in self.all_lessons(project) if not undone]

    def all_lessons(self, project: str) -> list[tuple[Lesson, bool]]:
        """All lessons of a project, by annotation, each with whether it was undone."""
        query = select(LESSONS.c.lesson, LESSONS.c.undone).where(LESSONS.c.project == project)
        with transaction(self._engine) as connection:
            rows = connection.execute(query.order_by(LESSONS.c.annotation))
            return [(Lesson.from_json(document), undone) for document, undone in rows]
