"""Integrity check of the database."""

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine
from sqlalchemy.exc import DatabaseError

from walkcut.storage.database import open_database


@dataclass(frozen=True)
class DatabaseState:
    """URL of a database without password, and the damage found; empty if there is none."""

    url: str
    damage: str


def check_integrity(folder: Path, url: str) -> DatabaseState:
    """Open the database as `open_database`, and check an SQLite file for damage. Raises `SettingsError`."""
    engine = open_database(folder, url)
    try:
        address = engine.url.set(query={}).render_as_string()
        return DatabaseState(address, _damage(engine) if engine.dialect.name == "sqlite" else "")
    finally:
        engine.dispose()


def _damage(engine: Engine) -> str:
    """Return the first damage that SQLite finds in its file."""
    try:
        with engine.connect() as connection:
            result = str(connection.exec_driver_sql("PRAGMA quick_check(1)").scalar())
    except DatabaseError as error:
        return str(error.orig)
    return "" if result == "ok" else result
