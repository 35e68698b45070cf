"""The file of an SQLite database, which may be removed, replaced or damaged while connections are open to it."""

import logging
import sqlite3
from contextlib import closing
from datetime import datetime, timezone
from pathlib import Path

from walkcut.errors import SettingsError

log = logging.getLogger(__name__)

FILE_NAME = "walkcut.sqlite3"
REPAIR = "stop walkcut and restore a backup, or run `walkcut repair`: Label Studio still has the annotations"

_PARTS = ("", "-wal", "-shm")  # the suffixes of the files that make up a database
# Messages of SQLite for a file whose content is wrong, unlike those for a full disk, a lock or missing permissions.
_DAMAGE = (
    "not a database",
    "malformed",
    "unsupported file format",
    "no such table",
    "no such column",
    "already exists",
)


def is_damage(reason: str) -> bool:
    """Return whether SQLite's message is about the content of a file.

    >>> is_damage("database disk image is malformed"), is_damage("database is locked")
    (True, False)
    """
    return any(message in reason for message in _DAMAGE)


def check_file(path: Path) -> None:
    """Log that a file without content, which SQLite takes for a new database, was probably not meant as one.

    Raises `SettingsError` for a path that leads to something else than a file.
    """
    if path.exists() and not path.is_file():
        raise SettingsError(f"{path} is not a file: move it away, since walkcut keeps its database there")
    if path.is_file() and not path.stat().st_size:
        log.warning(
            "%s is empty (0 bytes) and becomes a new database: if it was not new, restore a backup; without one, "
            "annotations are fetched from Label Studio if LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY are set",
            path,
        )


def set_aside(path: Path) -> Path:
    """Rename a database, and return its new path."""
    moment = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S")
    aside = path.with_name(f"{path.name}.damaged-{moment}")
    for part in _PARTS:
        file = path.with_name(path.name + part)
        if file.exists():
            file.rename(aside.with_name(aside.name + part))
    return aside


class OpenFile:
    """The file that connections to a path have open; `is_current` until the path is removed or leads to another file.

    A connection of its own keeps the file's number from being given to a later file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection = sqlite3.connect(path, check_same_thread=False)
        with closing(self._connection.execute("SELECT count(*) FROM sqlite_master")) as cursor:
            cursor.fetchall()  # opens the file, and its write-ahead log
        self._identity: list[tuple[int, int] | None] = self._find()

    @property
    def is_current(self) -> bool:
        """Whether the path, and that of the write-ahead log, lead to what was opened."""
        return self._find() == self._identity

    def expire(self) -> None:
        """Count as not current from now on: the file's content was overwritten."""
        self._identity = []

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _find(self) -> list[tuple[int, int] | None]:
        return [_identity(self._path.with_name(self._path.name + part)) for part in ("", "-wal")]


def _identity(path: Path) -> tuple[int, int] | None:
    """Return the numbers of a file; `None` without one, and for a database that was emptied."""
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_dev, status.st_ino) if status.st_size or path.name.endswith("-wal") else None
