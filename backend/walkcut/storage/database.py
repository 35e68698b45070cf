"""Opening and checking the projects' database, SQLite or PostgreSQL, and transactions on it."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tenacity
from sqlalchemy import Connection, Engine, Executable, Table, UpdateBase, create_engine, event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, DataError, DBAPIError, IntegrityError, ProgrammingError

from walkcut.errors import SettingsError, StoreError, unusable_folder
from walkcut.storage.migrations import migrate

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
_BUGS = (DataError, IntegrityError, ProgrammingError)  # errors of walkcut's own statements, not of the database's state


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

    Raises `SettingsError` for an unusable database, and `StoreError` while it is full or unavailable.
    """

    def __init__(self, folder: Path, url: str) -> None:
        self._engine = open_database(folder, url)
        self.insert = _INSERT[self._engine.dialect.name]

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Open a transaction that is on disk when the block has ended.

        One that writes begins with a write: SQLite lets it wait for other writers only then. The messages of errors
        hold no data.
        """
        try:
            with self._engine.begin() as connection:
                yield connection
        except _BUGS:
            raise
        except DBAPIError as error:
            remedy = (
                "check that there is room on its disk, that walkcut may write there, and that no other program locks it"
                if self._engine.dialect.name == "sqlite"
                else "check that it is up and has room"
            )
            database = _described(self._engine.url)
            raise StoreError(f"{database} cannot be used now ({_reason(error)}): {remedy}") from error

    def rows(self, query: Executable) -> list[Any]:
        """Return the rows of a query: tuples with the names of the columns."""
        with self.transaction() as connection:
            return list(connection.execute(query))

    def execute(self, statement: UpdateBase) -> int:
        """Execute a statement, and return the number of its rows."""
        with self.transaction() as connection:
            return connection.execute(statement).rowcount


def open_database(folder: Path, url: str) -> Engine:
    """Open the database at a URL, or an SQLite file in `folder` for an empty one, and bring its tables up to date.

    Raises `SettingsError` for an unusable database, without the URL's password in the message.
    """
    address = _parse_url(url) if url else URL.create("sqlite", database=str(folder / "walkcut.sqlite3"))
    engine = _engine(address)
    try:
        if not url:
            folder.mkdir(parents=True, exist_ok=True)
        with engine.begin() as connection:
            migrate(connection)
    except (OSError, DBAPIError) as error:
        reason = _reason(error)
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
                result = str(connection.exec_driver_sql("PRAGMA quick_check(1)").scalar())
                damage = "" if result == "ok" else result
    except DatabaseError as error:
        damage = str(error.orig)
    finally:
        engine.dispose()
    return DatabaseState(engine.url.set(query={}).render_as_string(), damage)


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
