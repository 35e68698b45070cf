"""A damaged database is set aside, and a new one begins with the projects that can still be read."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from walkcut.errors import DamagedDatabaseError
from walkcut.storage.database import check_integrity
from walkcut.storage.project_store import ProjectStore
from walkcut.storage.sqlite_file import FILE_NAME, set_aside
from walkcut.storage.tables import PROJECTS


@dataclass(frozen=True)
class Repair:
    """Result of a repair: the file of the damaged database, and the ids of the projects whose settings were kept."""

    aside: Path
    project_ids: tuple[str, ...]


def repair_database(folder: Path) -> Repair | None:
    """Set the SQLite database of a state folder aside if it is damaged, and make a new one; `None` if it is not.

    The settings of projects are kept as far as they can be read; annotations are to be fetched from Label Studio.
    Raises `SettingsError`.
    """
    if not _find_damage(folder):
        return None
    aside = set_aside(folder / FILE_NAME)
    projects = list(_read_projects(aside))
    with closing(ProjectStore(folder)) as store:
        for project in projects:
            store.restore(project)
    return Repair(aside, tuple(project["project_id"] for project in projects))


def _find_damage(folder: Path) -> str:
    try:
        return check_integrity(folder, "").damage
    except DamagedDatabaseError as error:
        return str(error)


def _read_projects(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of projects in a damaged database, up to the first that cannot be read."""
    engine = sa.create_engine(sa.URL.create("sqlite", database=str(path)))
    try:
        with engine.connect() as connection:
            for row in connection.execute(sa.select(PROJECTS)):
                yield dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's public name
    except (sa.exc.DatabaseError, ValueError):
        return
    finally:
        engine.dispose()
