"""What outlives a request: what Label Studio told us of projects, and the cut trees of pictures already seen."""

import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from sqlalchemy import JSON, Column, DateTime, Integer, MetaData, String, Table, create_engine, event, select
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import DatabaseError

from walkcut.errors import SettingsError, TreeFileError
from walkcut.segmentation.tree import CutTree

log = logging.getLogger(__name__)

_METADATA = MetaData()
_EVENTS = Table(
    "events",
    _METADATA,
    Column("id", Integer, primary_key=True),
    Column("received", DateTime(timezone=True), nullable=False),
    Column("action", String(64), nullable=False),
    Column("project", String(64), nullable=False, index=True),
    Column("body", JSON, nullable=False),
)
_PROJECTS = Table(
    "projects",
    _METADATA,
    Column("project", String(64), primary_key=True),
    Column("extra_params", JSON, nullable=False),
)


@dataclass(frozen=True)
class Event:
    """A webhook call of Label Studio's: what happened in which project, and the document as it came."""

    action: str
    project: str
    body: dict[str, Any]


class ProjectStore:
    """Events and parameters of projects, in SQLite; every write is on disk when the call returns.

    Raises `SettingsError` for a folder that cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        self._engine = create_engine(f"sqlite:///{folder / 'walkcut.sqlite3'}")
        event.listen(self._engine, "connect", _write_ahead)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _METADATA.create_all(self._engine)
        except (OSError, DatabaseError) as error:
            reason = error.orig if isinstance(error, DatabaseError) else error
            raise SettingsError(
                f"{folder} cannot be used to keep state ({reason}): set WALKCUT_STATE_DIR to a folder of your own"
            ) from error

    def close(self) -> None:
        """Let go of the database file."""
        self._engine.dispose()

    def record(self, happened: Event) -> None:
        """Keep an event for later."""
        row = {"received": datetime.now(timezone.utc), **vars(happened)}
        with self._engine.begin() as connection:
            connection.execute(_EVENTS.insert(), row)

    def events(self, project: str) -> list[Event]:
        """A project's events in the order of arrival."""
        query = select(_EVENTS.c.action, _EVENTS.c.project, _EVENTS.c.body).where(_EVENTS.c.project == project)
        with self._engine.connect() as connection:
            return [Event(*row) for row in connection.execute(query.order_by(_EVENTS.c.id))]

    def remember_extra_params(self, project: str, extra_params: dict[str, Any]) -> None:
        """Keep a project's extra parameters, which Label Studio sends at set-up alone; nothing is written twice."""
        if self.extra_params(project) == extra_params:
            return
        row = insert(_PROJECTS).values(project=project, extra_params=extra_params)
        with self._engine.begin() as connection:
            connection.execute(row.on_conflict_do_update([_PROJECTS.c.project], set_={"extra_params": extra_params}))

    def extra_params(self, project: str) -> dict[str, Any]:
        """What `remember_extra_params` kept last, or nothing."""
        query = select(_PROJECTS.c.extra_params).where(_PROJECTS.c.project == project)
        with self._engine.connect() as connection:
            return connection.execute(query).scalar_one_or_none() or {}


def _write_ahead(connection: Any, _record: object) -> None:
    """Readers do not wait for writers; a commit is on disk before it returns."""
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")


class TreeCache:
    """Cut trees in a folder, by key; the least recently used go when the folder outgrows its quota."""

    def __init__(self, folder: Path, quota: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._quota = folder, quota

    def get(self, key: str) -> CutTree | None:
        """The tree kept under a key, or `None`; a damaged file is dropped."""
        path = self._path(key)
        try:
            tree = CutTree.from_bytes(path.read_bytes())
            os.utime(path)
        except FileNotFoundError:
            return None
        except TreeFileError as error:
            log.warning("dropped %s: %s", path, error)
            path.unlink(missing_ok=True)
            return None
        return tree

    def put(self, key: str, tree: CutTree) -> None:
        """Keep a tree: whole or not at all, whatever happens meanwhile. A full disk is logged, not raised."""
        try:
            with atomic_file(self._path(key)) as write:
                write(tree.to_bytes())
            self._evict()
        except OSError as error:
            log.warning("the cut tree %s was not kept: %s", key, error)

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.tree.npz"

    def _evict(self) -> None:
        """Drop the least recently used trees until the rest fits the quota."""
        files = []
        for path in self._folder.glob("*.tree.npz"):
            with suppress(FileNotFoundError):  # another thread's eviction
                status = path.stat()
                files.append((status.st_mtime_ns, status.st_size, path))
        excess = sum(size for _, size, _ in files) - self._quota
        for _, size, path in sorted(files):
            if excess <= 0:
                break
            path.unlink(missing_ok=True)
            excess -= size


@contextmanager
def atomic_file(path: Path) -> Iterator[Callable[[bytes], int]]:
    """A file that appears under its name when it is complete, and not at all where writing fails."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file.write
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)
