"""The database of projects: its tables, how they are brought up to date, and how SQLite or PostgreSQL is opened."""

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    DateTime,
    Dialect,
    Engine,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    event,
    false,
    func,
    inspect,
    select,
    text,
    true,
)
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.schema import CreateColumn
from sqlalchemy.types import TypeDecorator

from walkcut.errors import SettingsError, StoreError, unusable_folder

VERSION = 3  # of the tables; version 1 said nothing of itself, and knew neither lessons nor what was yet to be done
_DRAFT = 2  # never released: its lessons are those of annotations, from which they are learned again
_DRIVERS = {"sqlite": "sqlite", "postgres": "postgresql+psycopg", "postgresql": "postgresql+psycopg"}
_LOCK = {"sqlite": "BEGIN IMMEDIATE", "postgresql": "SELECT pg_advisory_xact_lock(1895112873)"}
_CONNECT: dict[str, dict[str, Any]] = {
    "sqlite": {"timeout": 10.0},  # seconds that writers wait for each other
    "postgresql": {
        "connect_timeout": 10,
        "client_encoding": "utf8",
        # A server that has vanished without a word is taken for gone after half a minute, not after hours.
        "keepalives_idle": 15,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 30_000,
    },
}
_DEFECTS = (DataError, IntegrityError, ProgrammingError)  # of walkcut, not of the database's state
_METADATA = MetaData()


class _Json(TypeDecorator[Any]):
    """JSON as text: PostgreSQL's own type refuses the infinities that Python writes and reads."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str:  # noqa: ARG002
        return json.dumps(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:  # noqa: ARG002
        return json.loads(value)


EVENTS = Table(
    "events",
    _METADATA,
    Column("id", Integer, primary_key=True),
    Column("received", DateTime(timezone=True), nullable=False),
    Column("action", String(64), nullable=False),
    Column("project", String(64), nullable=False, index=True),
    Column("body", _Json, nullable=False),
    Column("finished", Boolean, nullable=False, server_default=false()),
    Index("ix_events_pending", "id", sqlite_where=text("NOT finished"), postgresql_where=text("NOT finished")),
)
PROJECTS = Table(
    "projects",
    _METADATA,
    Column("project", String(64), primary_key=True),
    Column("extra_params", _Json, nullable=False, server_default="{}"),
    Column("label_config", Text, nullable=False, server_default=""),
    Column("learning", Boolean, nullable=False, server_default=true()),
)
LESSONS = Table(
    "lessons",
    _METADATA,
    Column("project", String(64), primary_key=True),
    Column("annotation", BigInteger, primary_key=True, autoincrement=False),
    Column("task", BigInteger, nullable=False),
    Column("updated", DateTime(timezone=True), nullable=False),
    Column("disabled", Boolean, nullable=False),
    Column("lesson", _Json, nullable=False),
    Index("ix_lessons_revision", "project", "disabled", "annotation", "updated"),  # lessons themselves are kilobytes
)
LESSON_LABELS = Table(
    "lesson_labels",
    _METADATA,
    Column("project", String(64), primary_key=True),
    Column("label", String(64), primary_key=True),
    Column("annotation", BigInteger, primary_key=True, autoincrement=False),
    Index("ix_lesson_labels_annotation", "project", "annotation"),
)
_SCHEMA = Table("schema_version", _METADATA, Column("version", Integer, nullable=False))


def open_database(folder: Path, url: str) -> Engine:
    """The database at a URL, or without one an SQLite file in `folder`, with all its tables.

    Raises `SettingsError` where it cannot be used; the URL's password is never shown.
    """
    address = _address(url) if url else URL.create("sqlite", database=str(folder / "walkcut.sqlite3"))
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
            f"{_place(address)} cannot be used ({reason}): see that it is up and that WALKCUT_DATABASE_URL is right"
        ) from error
    finally:
        engine.dispose()  # nothing stays open where this fails
    return engine


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection]:
    """One transaction, on disk when the block has ended. Raises `StoreError` where the database has no room or is away.

    Nothing of what was to be written shows in the message.
    """
    try:
        with engine.begin() as connection:
            yield connection
    except _DEFECTS:
        raise
    except DBAPIError as error:
        remedy = (
            "see that there is room on its disk, that walkcut may write there, and that no other program locks it"
            if engine.dialect.name == "sqlite"
            else "see that it is up and has room"
        )
        raise StoreError(f"{_place(engine.url)} cannot be used now ({_reason(error)}): {remedy}") from error


def _place(address: URL) -> str:
    """What to call a database in a message, without its password."""
    return f"the database {address.set(query={}).render_as_string()}"


def _reason(error: Exception) -> str:
    """What the database says, in one line."""
    return " ".join(str(error.orig if isinstance(error, DBAPIError) else error).split())


def _address(url: str) -> URL:
    """A URL with the driver to use. Raises `SettingsError` that tells nothing of it: any part may be the password."""
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
    """Connections to a database, tried before each use, since its server may have been restarted.

    There are as many as threads that use it at once: none waits for others that wait for a lock.
    """
    backend = address.get_backend_name()
    connect = {name: value for name, value in _CONNECT[backend].items() if name not in address.query}
    try:
        engine = create_engine(address, connect_args=connect, max_overflow=-1, pool_pre_ping=True, hide_parameters=True)
    except ModuleNotFoundError as error:
        raise SettingsError(f"{backend} needs {error.name}: pip install 'walkcut[postgres]'") from error
    if backend == "sqlite":
        event.listen(engine, "connect", _write_ahead)
    return engine


def _write_ahead(connection: Any, _record: object) -> None:
    """Readers do not wait for writers; a commit is on disk before it returns; the system caches the file, once."""
    _switch_to_wal(connection, time.monotonic() + _CONNECT["sqlite"]["timeout"])
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA cache_size=-256")  # KiB for each of many connections


def _switch_to_wal(connection: sqlite3.Connection, end: float) -> None:
    """Switch, once, to a log of writes; where several open a new file at once, SQLite does not wait by itself."""
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > end:
                raise
            time.sleep(0.02)
        else:
            return


def migrate(connection: Connection) -> None:
    """Add the tables, columns and indexes that are not there yet, one process at a time.

    Raises `SettingsError` for a database of a later version.
    """
    connection.exec_driver_sql(_LOCK[connection.dialect.name])
    _METADATA.create_all(connection)
    found = connection.scalar(select(func.max(_SCHEMA.c.version))) or 0
    if found > VERSION:
        raise SettingsError(
            f"what walkcut keeps was written by a later walkcut (tables of version {found}): install that"
        )
    if found == _DRAFT:
        LESSONS.drop(connection)
        LESSONS.create(connection)
    if found < VERSION:
        for table in _METADATA.sorted_tables:
            add_missing_columns(connection, table)
        connection.execute(_SCHEMA.insert().values(version=VERSION))


def add_missing_columns(connection: Connection, table: Table) -> None:
    """Add a table's missing columns and indexes; rows get the columns' defaults."""
    present = {column["name"] for column in inspect(connection).get_columns(table.name)}
    for column in table.columns:
        if column.name not in present:
            declaration = CreateColumn(column).compile(dialect=connection.dialect)
            connection.exec_driver_sql(f"ALTER TABLE {table.name} ADD COLUMN {declaration}")
    for index in table.indexes:
        index.create(connection, checkfirst=True)
