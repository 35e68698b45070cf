"""Submitted annotations of Label Studio projects: what waits to be learned from, and what was learned."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import sqlalchemy as sa

from walkcut.storage.database import Database
from walkcut.storage.tables import ANNOTATIONS, LABELS, PROJECTS

# Annotations that a project learns from: more change little, and cost time and memory.
_MAX_LATEST, _MAX_LATEST_PER_LABEL = 300, 100
_MAX_DELETED = 500  # with one statement: a database limits the number of its parameters
_CLOCK_DIFFERENCE_S = 60.0  # between machines that share a database
_UNREADABLE = datetime(1970, 1, 1, tzinfo=timezone.utc)  # older than any annotation

_C = ANNOTATIONS.c
_IS_LEARNED = _C.learned_updated.is_not(None)
_IS_ENABLED = _IS_LEARNED & (
    _C.disabled_updated.is_(None) | _C.disabled_updated.not_in([_C.updated, _C.learned_updated])
)


@dataclass(frozen=True)
class AnnotationRow:
    """A submitted annotation: its task, when it was changed last, and its document in JSON."""

    project_id: str
    annotation_id: int
    task_id: int
    updated: datetime
    submission: dict[str, Any]


@dataclass(frozen=True)
class Attempt:
    """An attempt to learn from an annotation: its number from 1, and whether its merged segments were offered."""

    row: AnnotationRow
    number: int
    is_offered: bool


@dataclass(frozen=True)
class SetAside:
    """An annotation that could not be learned from: why, after how many attempts, and when the next one is.

    `due` is in seconds since 1970; `None` for a document that cannot be read, until Label Studio has a later one.
    """

    annotation_id: int
    task_id: int
    attempts: int
    due: float | None
    problem: str


@dataclass(frozen=True)
class Backlog:
    """The numbers of annotations that wait for their first attempt, and that were set aside with a problem."""

    pending: int = 0
    set_aside: int = 0


class AnnotationStore:
    """Annotations by project and id, with the feedback that was learned from each. Methods raise `StoreError`.

    Each saved state of an annotation is learned from once. If it is changed or deleted while it is learned from, the
    result is dropped.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def save(self, row: AnnotationRow) -> None:
        """Save an annotation, to be learned from at once, unless this state of it or a later one is known."""
        self._save(row, lambda new: new > _C.updated)

    def replace(self, row: AnnotationRow) -> None:
        """Save an annotation as Label Studio holds it, even if the known state is later: its clock may be put back."""
        self._save(row, lambda new: new != _C.updated)

    def _save(self, row: AnnotationRow, is_newer: Callable[[Any], sa.ColumnElement[bool]]) -> None:
        state = {"task_id": row.task_id, "updated": row.updated, "submission": row.submission}
        state |= {"due": 0.0, "attempts": 0, "problem": ""}
        insert = self._database.insert(ANNOTATIONS).values(
            project_id=row.project_id, annotation_id=row.annotation_id, **state
        )
        where = is_newer(insert.excluded.updated)
        self._database.execute(insert.on_conflict_do_update(index_elements=_KEY, set_=state, where=where))

    def save_unreadable(self, project_id: str, annotation_id: int, task_id: int, problem: str) -> None:
        """Set an annotation aside whose document cannot be read; what was learned from an earlier state stays."""
        row = {"project_id": project_id, "annotation_id": annotation_id, "task_id": task_id, "problem": problem}
        insert = self._database.insert(ANNOTATIONS).values(**row, updated=_UNREADABLE, submission={}, attempts=1)
        again = {"attempts": _C.attempts + 1, "problem": problem}
        self._database.execute(insert.on_conflict_do_update(index_elements=_KEY, set_=again))

    def known(self, project_id: str) -> dict[int, datetime]:
        """Return when each annotation was changed last, by its id."""
        rows = self._database.rows(sa.select(_C.annotation_id, _C.updated).where(_C.project_id == project_id))
        return {annotation_id: _in_utc(updated) for annotation_id, updated in rows}

    def delete(self, project_id: str, annotation_ids: Collection[int]) -> None:
        """Delete annotations that no longer exist, and their feedback."""
        self._delete(project_id, _C.annotation_id, annotation_ids)

    def delete_tasks(self, project_id: str, task_ids: Collection[int]) -> None:
        """Delete the annotations of tasks that no longer exist, and their feedback."""
        self._delete(project_id, _C.task_id, task_ids)

    def next_attempt(self, now: float, pause: Callable[[int], float], project_id: str = "") -> Attempt | None:
        """Return the attempt that has been due longest at the time `now`; `None` without one.

        The attempt is reserved before it is made, and the next one is scheduled `pause(number)` seconds later: a crash
        is not retried at once, and no two processes make the same attempt. Projects that do not learn are left out;
        with a `project_id`, all others are.
        """
        off = sa.select(PROJECTS.c.project_id).where(sa.not_(PROJECTS.c.learning))
        was_put_back = _C.reserved > now + _CLOCK_DIFFERENCE_S  # the clock, since the last attempt was reserved
        is_due = _C.due.is_not(None) & ((_C.due <= now) | was_put_back) & _C.project_id.not_in(off)
        is_due &= _C.project_id == project_id if project_id else sa.true()
        first = sa.select(ANNOTATIONS).where(is_due).order_by(_C.due, _C.annotation_id).limit(1)
        while rows := self._database.rows(first):
            row, number = rows[0], rows[0].attempts + 1
            annotation = AnnotationRow(
                row.project_id, row.annotation_id, row.task_id, _in_utc(row.updated), row.submission
            )
            unchanged = _is_state(annotation) & (_C.due == row.due) & (_C.attempts == row.attempts)
            note = ANNOTATIONS.update().where(unchanged).values(attempts=number, due=now + pause(number), reserved=now)
            if self._database.execute(note):
                return Attempt(annotation, number, row.is_offered)
        return None

    def postpone(self, row: AnnotationRow, due: float, problem: str) -> None:
        """Set an annotation aside until its next attempt is due."""
        self._database.execute(ANNOTATIONS.update().where(_is_state(row)).values(due=due, problem=problem))

    def finish(self, row: AnnotationRow) -> None:
        """Note that nothing is left to do for an annotation."""
        done = {"due": None, "attempts": 0, "problem": "", "is_offered": True}
        self._database.execute(ANNOTATIONS.update().where(_is_state(row)).values(**done))

    def save_feedback(
        self, row: AnnotationRow, segmenter_version: str, labels: Collection[str], feedback: dict[str, Any]
    ) -> None:
        """Save an annotation's feedback, with the segmenter that it is from and the labels in it."""
        learned = {"learned_updated": row.updated, "segmenter_version": segmenter_version, "feedback": feedback}
        key = {"project_id": row.project_id, "annotation_id": row.annotation_id}
        rows = [{**key, "label": label} for label in {_label_key(label) for label in labels}]
        with self._database.transaction() as connection:
            if connection.execute(ANNOTATIONS.update().where(_is_state(row)).values(**learned)).rowcount:
                connection.execute(_delete_labels(row.project_id, [row.annotation_id]))
                for values in rows:
                    connection.execute(LABELS.insert().values(values))
                self._increment_revision(connection, row.project_id)

    def relearn(self, segmenter_version: str) -> int:
        """Have all annotations learned from again whose feedback is from another segmenter; return their number."""
        is_other = _IS_LEARNED & (_C.segmenter_version != segmenter_version) & _C.due.is_(None)
        return self._database.execute(ANNOTATIONS.update().where(is_other).values(due=0.0, attempts=0, problem=""))

    def retry(self, project_id: str) -> None:
        """Have the annotations of a project that were set aside learned from at once."""
        waits = (_C.project_id == project_id) & _C.due.is_not(None)
        self._database.execute(ANNOTATIONS.update().where(waits).values(due=0.0))

    def backlog(self, project_id: str = "") -> Backlog:
        """Return how many annotations of all projects, or of one, were not learned from yet."""
        counts = [
            sa.func.count().filter(condition)
            for condition in (_C.due.is_not(None) & (_C.problem == ""), _C.problem != "")
        ]
        query = sa.select(*counts).where(_C.project_id == project_id if project_id else sa.true())
        return Backlog(*self._database.rows(query)[0])

    def list_set_aside(self, project_id: str) -> list[SetAside]:
        """Return the annotations of a project that could not be learned from, by id."""
        columns = _C.annotation_id, _C.task_id, _C.attempts, _C.due, _C.problem
        where = (_C.project_id == project_id) & (_C.problem != "")
        rows = self._database.rows(sa.select(*columns).where(where).order_by(_C.annotation_id))
        return [SetAside(*row) for row in rows]

    def disable(self, project_id: str, annotation_id: int) -> bool:
        """Disable an annotation's feedback until the annotation changes; return whether there was any enabled."""
        return self._disable(project_id, _C.annotation_id == annotation_id) > 0

    def reset(self, project_id: str) -> int:
        """Disable the feedback of all annotations of a project; return how many had some that was enabled."""
        return self._disable(project_id, sa.true())

    def feedback(self, project_id: str) -> list[dict[str, Any]]:
        """Return the enabled documents of a project's latest annotations and of the latest with each label, by id."""
        enabled = (_C.project_id == project_id) & _IS_ENABLED
        latest = sa.select(_C.annotation_id).where(enabled).order_by(_C.annotation_id.desc())
        chosen = _C.annotation_id.in_(latest.limit(_MAX_LATEST)) | _C.annotation_id.in_(_latest_per_label(enabled))
        return [document for document, _ in self._documents(enabled & chosen)]

    def all_feedback(self, project_id: str) -> list[tuple[dict[str, Any], bool]]:
        """Return all documents of a project, by annotation id, each with whether it is disabled."""
        return self._documents((_C.project_id == project_id) & _IS_LEARNED)

    def _disable(self, project_id: str, condition: sa.ColumnElement[bool]) -> int:
        """Disable the feedback of annotations, also of those that were not learned from yet."""
        chosen = (_C.project_id == project_id) & condition
        with self._database.transaction() as connection:
            self._increment_revision(connection, project_id)
            count = connection.execute(sa.select(sa.func.count()).where(chosen, _IS_ENABLED)).scalar_one()
            connection.execute(ANNOTATIONS.update().where(chosen).values(disabled_updated=_C.updated))
            return int(count)

    def _delete(self, project_id: str, column: sa.Column[int], ids: Collection[int]) -> None:
        remaining = sorted(ids)
        with self._database.transaction() as connection:
            for start in range(0, len(remaining), _MAX_DELETED):
                chosen = (_C.project_id == project_id) & column.in_(remaining[start : start + _MAX_DELETED])
                connection.execute(_delete_labels(project_id, sa.select(_C.annotation_id).where(chosen)))
                if connection.execute(ANNOTATIONS.delete().where(chosen)).rowcount:
                    self._increment_revision(connection, project_id)

    def _increment_revision(self, connection: sa.Connection, project_id: str) -> None:
        row = self._database.insert(PROJECTS).values(project_id=project_id)
        raised = {"revision": PROJECTS.c.revision + 1}
        connection.execute(row.on_conflict_do_update(index_elements=[PROJECTS.c.project_id], set_=raised))

    def _documents(self, condition: sa.ColumnElement[bool]) -> list[tuple[dict[str, Any], bool]]:
        query = sa.select(_C.feedback, sa.not_(_IS_ENABLED)).where(condition).order_by(_C.annotation_id)
        return [(document, bool(disabled)) for document, disabled in self._database.rows(query)]


_KEY = [_C.project_id, _C.annotation_id]


def _is_state(row: AnnotationRow) -> sa.ColumnElement[bool]:
    """Return the condition for this very state of an annotation."""
    return (_C.project_id == row.project_id) & (_C.annotation_id == row.annotation_id) & (_C.updated == row.updated)


def _delete_labels(project_id: str, annotation_ids: Sequence[int] | sa.Select[tuple[int]]) -> sa.Delete:
    return LABELS.delete().where(LABELS.c.project_id == project_id, LABELS.c.annotation_id.in_(annotation_ids))


def _latest_per_label(enabled: sa.ColumnElement[bool]) -> sa.Select[Any]:
    """Return a query for the ids of the latest annotations with each label."""
    label = LABELS.c
    rank = sa.func.row_number().over(partition_by=label.label, order_by=label.annotation_id.desc()).label("rank")
    same = (label.project_id == _C.project_id) & (label.annotation_id == _C.annotation_id)
    ranked = sa.select(label.annotation_id, rank).join_from(LABELS, ANNOTATIONS, same).where(enabled).subquery()
    return sa.select(ranked.c.annotation_id).where(ranked.c.rank <= _MAX_LATEST_PER_LABEL)


def _label_key(label: str) -> str:
    """Return a label as its column holds it: ASCII, at most 64 characters; labels with the same key count as one."""
    return label.encode("unicode_escape")[:64].decode()


def _in_utc(moment: datetime) -> datetime:
    """Return a time with its zone, which SQLite does not keep."""
    return moment.replace(tzinfo=timezone.utc) if moment.tzinfo is None else moment
