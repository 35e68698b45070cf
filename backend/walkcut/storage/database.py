"""Opening and checking the projects' database, SQLite or PostgreSQL, and transactions on it."""

import logging
import sqlite3
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tenacity
from sqlalchemy import Connection, Engine, Executable, Table, UpdateBase, create_engine, event, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, DataError, DBAPIError, IntegrityError, ProgrammingError

from walkcut.errors import DamagedDatabaseError, SettingsError, StoreError, unusable_folder
from walkcut.storage.migrations import migrate
from walkcut.storage.sqlite_file import FILE_NAME, REPAIR, OpenFile, check_file, is_damage
from walkcut.storage.tables import METADATA

log = logging.getLogger(__name__)

_DRIVERS = {"sqlite": "sqlite", "postgres": "postgresql+psycopg", "postgresql": "postgresql+psycopg"}
_CONNECT: dict[str, dict[str, Any]] = {
    "sqlite": {"timeout": 10.0},  # seconds that writers wait for each other
    "postgresql": {
        "connect_timeout": 10,
        "client_encoding": "utf8",
        # A connection to a server that disappeared ends after half a minute, not after hours.
        "keepalives_idle": 15,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 30_000,
    },
}
_REPLACED_REMEDY = (
    "try again; annotations that the file lacks are fetched from Label Studio, if LABEL_STUDIO_URL and "
    "LABEL_STUDIO_API_KEY are set"
)
_BUGS = (DataError, IntegrityError, ProgrammingError)  # errors of walkcut's own statements, not of the database's state
_UNREADABLE = (ValueError, TypeError, zlib.error)  # of values that were overwritten, which SQLite does not notice


@dataclass(frozen=True)
class DatabaseState:
    """URL of a database without password, and the damage found; empty if there is none."""

    url: str
    damage: str


_INSERT: dict[str, Callable[[Table], sqlite.Insert | postgresql.Insert]] = {
    "sqlite": sqlite.insert,  # these have "on conflict"
    "postgresql": postgresql.insert,
}


class Database:
    """The database at a URL, or an SQLite file in `folder` for an empty one, with tables that are up to date.

    Raises `SettingsError` for an unusable database, and `StoreError` while it is full or unavailable. An SQLite file
    that is removed or replaced while it is open is noticed before anything is acknowledged, and opened again.
    """

    def __init__(self, folder: Path, url: str) -> None:
        self._folder, self._url = folder, url
        self._opening = threading.Lock()
        self._open()

    def _open(self) -> None:
        self._engine = open_database(self._folder, self._url)
        self.insert = _INSERT[self._engine.dialect.name]
        path = _sqlite_path(self._engine)
        self._file = OpenFile(path) if path else None

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()
        if self._file is not None:
            self._file.close()

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Open a transaction that is on disk when the block has ended.

        One that writes begins with a write: SQLite lets it wait for other writers only then. The messages of errors
        hold no data.
        """
        engine, file = self._current()
        try:
            with engine.begin() as connection:
                yield connection
        except _BUGS:
            raise
        except DBAPIError as error:
            reason = _reason(error)
            if file is not None and is_damage(reason):
                file.expire()
            raise StoreError(
                f"{_described(engine.url)} cannot be used now ({reason}): {_remedy(engine, reason)}"
            ) from error
        if file is not None and not file.is_current:
            raise StoreError(
                f"{_described(engine.url)} was removed, replaced or overwritten meanwhile: {_REPLACED_REMEDY}"
            )

    def _current(self) -> tuple[Engine, OpenFile | None]:
        """Return the engine and its file. Raises `StoreError` after a file that was replaced has been opened again."""
        engine, file = self._engine, self._file
        if file is None or file.is_current:
            return engine, file
        with self._opening:
            if file is self._file:
                self._reopen()
        raise StoreError(f"{_described(engine.url)} was removed, replaced or overwritten: {_REPLACED_REMEDY}")

    def _reopen(self) -> None:
        name = _described(self._engine.url)
        self.close()
        try:
            self._open()
        except (SettingsError, sqlite3.Error) as error:  # the latter if it is replaced again at this moment
            raise StoreError(f"what was opened was removed, replaced or overwritten, and {error}") from error
        opened = "the file that is there now was opened, or a new one made"
        log.error("%s was removed, replaced or overwritten: %s; %s", name, opened, _REPLACED_REMEDY)

    def rows(self, query: Executable) -> list[Any]:
        """Return the rows of a query: tuples with the names of the columns."""
        try:
            with self.transaction() as connection:
                return list(connection.execute(query))
        except _UNREADABLE as error:
            raise StoreError(
                f"{_described(self._engine.url)} holds a value that cannot be read ({error}): {REPAIR}"
            ) from error

    def execute(self, statement: UpdateBase) -> int:
        """Execute a statement, and return the number of its rows."""
        with self.transaction() as connection:
            return connection.execute(statement).rowcount


def open_database(folder: Path, url: str) -> Engine:
    """Open the database at a URL, or an SQLite file in `folder` for an empty one, and bring its tables up to date.

    Raises `SettingsError` for an unusable database, without the URL's password in the message, and of these
    `DamagedDatabaseError` for an SQLite file with wrong content.
    """
    address = _parse_url(url) if url else URL.create("sqlite", database=str(folder / FILE_NAME))
    engine = _engine(address)
    try:
        if not url:
            folder.mkdir(parents=True, exist_ok=True)
        if path := _sqlite_path(engine):
            check_file(path)
        with engine.begin() as connection:
            migrate(connection)
            for table in METADATA.sorted_tables:
                connection.execute(select(table).limit(0))  # fails without the table, or one of its columns
    except (OSError, DBAPIError) as error:
        reason = _reason(error)
        if _is_damaged(engine, reason):
            raise DamagedDatabaseError(f"{_described(address)} is damaged ({reason}): {REPAIR}") from error
        if not url:
            raise unusable_folder(folder, reason) from error
        raise SettingsError(
            f"{_described(address)} cannot be used ({reason}): check that it is up and that WALKCUT_DATABASE_URL is "
            "right"
        ) from error
    finally:
        engine.dispose()  # leave no connection open after a failure
    return engine


def check_integrity(folder: Path, url: str) -> DatabaseState:
    """Open the database as `open_database`, and check an SQLite file for damage. Raises `SettingsError`."""
    engine, damage = open_database(folder, url), ""
    try:
        if engine.dialect.name == "sqlite":
            with engine.connect() as connection:
                damage = _find_damage(connection)
    except (DatabaseError, *_UNREADABLE) as error:
        damage = _reason(error)
    finally:
        engine.dispose()
    return DatabaseState(engine.url.set(query={}).render_as_string(), damage)


def _find_damage(connection: Connection) -> str:
    """Return the damage of an SQLite file, or raise it; empty if each page and each value can be read."""
    result = str(connection.exec_driver_sql("PRAGMA quick_check(1)").scalar())
    for table in METADATA.sorted_tables:
        for _ in connection.execute(select(table)):
            pass
    return "" if result == "ok" else result


def _is_damaged(engine: Engine, reason: str) -> bool:
    return engine.dialect.name == "sqlite" and is_damage(reason)


def _remedy(engine: Engine, reason: str) -> str:
    if engine.dialect.name != "sqlite":
        return "check that it is up and has room"
    if is_damage(reason):
        return f"it is damaged: {REPAIR}"
    return "check that there is room on its disk, that walkcut may write there, and that no other program locks it"


def _sqlite_path(engine: Engine) -> Path | None:
    """Return the file of an SQLite database; `None` for another one, or one with the options of a URI."""
    url = engine.url
    return Path(url.database or "") if url.get_backend_name() == "sqlite" and "uri" not in url.query else None


def _described(address: URL) -> str:
    """Return a database's address for a message, without its password."""
    return f"the database {address.set(query={}).render_as_string()}"


def _reason(error: Exception) -> str:
    """Return the database's own message, in one line."""
    return " ".join(str(error.orig if isinstance(error, DBAPIError) else error).split())


def _parse_url(url: str) -> URL:
    """Return a URL with its driver. Raises a `SettingsError` that quotes nothing: any part may be the password."""
    try:
        address = make_url(url)
    except (ArgumentError, ValueError):
        address = URL.create("none")
    driver = _DRIVERS.get(address.get_backend_name())
    if driver is None or address.database in (None, "", ":memory:") or "@" in (address.host or ""):
        raise SettingsError(
            "WALKCUT_DATABASE_URL names no database that walkcut can use: write postgresql://user:password@host/name "
            "or sqlite:////folder/file.sqlite3, with @, : and / in a password as %40, %3A and %2F"
        )
    return address.set(drivername=driver)


def _engine(address: URL) -> Engine:
    """Return an engine that tests each connection before use, since the server may have been restarted.

    The number of connections is unlimited: a thread never waits for threads that wait for a lock.
    """
    backend = address.get_backend_name()
    connect = {name: value for name, value in _CONNECT[backend].items() if name not in address.query}
    try:
        engine = create_engine(address, connect_args=connect, max_overflow=-1, pool_pre_ping=True, hide_parameters=True)
    except ModuleNotFoundError as error:
        raise SettingsError(f"{backend} needs {error.name}: pip install 'walkcut[postgres]'") from error
    if backend == "sqlite":
        event.listen(engine, "connect", _set_pragmas)
    return engine


def _is_locked(error: BaseException) -> bool:
    return isinstance(error, sqlite3.OperationalError) and "locked" in str(error)


# SQLite does not wait by itself when several processes open a new file at once.
@tenacity.retry(
    retry=tenacity.retry_if_exception(_is_locked),
    wait=tenacity.wait_fixed(0.02),
    stop=tenacity.stop_after_delay(_CONNECT["sqlite"]["timeout"]),
    reraise=True,
)
def _set_pragmas(connection: Any, _record: object) -> None:
    """Let readers not wait for writers, and have each commit on disk before it returns."""
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA cache_size=-256")  # KiB per connection: the system caches the file too
