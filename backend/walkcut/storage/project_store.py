"""Set-ups of Label Studio projects, and their annotations."""

from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from walkcut.errors import RequestError
from walkcut.storage.annotation_store import AnnotationStore
from walkcut.storage.database import Database
from walkcut.storage.tables import ANNOTATIONS, LABELS, PROJECTS

_OTHER_PROJECT = (
    "project {0} is another one (created {1}) than the project {0} that walkcut knows (created {2}): one walkcut "
    "serves one Label Studio; start another for the other, with its own WALKCUT_STATE_DIR and port, or, if Label "
    "Studio was installed again, run `walkcut project forget {0}`"
)
_MAX_TIME = 1 << 37  # seconds: the year 6325


class ProjectStore:
    """Projects and their `annotations` in SQLite or PostgreSQL, safe to share between threads and processes.

    Every write is one transaction, on disk when the call returns. Without a `url` the database is a file in `folder`.
    Raises `SettingsError` for an unusable database; every method raises `StoreError`, and changes nothing, while the
    database is unavailable.
    """

    def __init__(self, folder: Path, url: str = "") -> None:
        self._database = Database(folder, url)
        self.annotations = AnnotationStore(self._database)

    def close(self) -> None:
        """Close all connections."""
        self._database.close()

    def claim(self, project_id: str, created: int) -> None:
        """Note when a project was created, 0 if unknown.

        Raises `RequestError` if another project with this id is known: it is that of another Label Studio.
        """
        if not created or created == (known := self._get(project_id, "created", default=0)):
            return
        if known:
            times = (str(datetime.fromtimestamp(min(moment, _MAX_TIME), timezone.utc)) for moment in (created, known))
            raise RequestError(_OTHER_PROJECT.format(project_id, *times))
        self._save(project_id, {"created": created})

    def save_setup(self, project_id: str, label_config: str, extra_params: dict[str, Any]) -> None:
        """Save a set-up; nothing is written if it is unchanged, as most of Label Studio's frequent calls are."""
        setup = {"label_config": label_config, "extra_params": extra_params}
        if setup != {"label_config": self.label_config(project_id), "extra_params": self.extra_params(project_id)}:
            self._save(project_id, setup)

    def label_config(self, project_id: str) -> str:
        """Return the labelling config of the last set-up; empty before the first."""
        return self._get(project_id, "label_config", default="")

    def extra_params(self, project_id: str) -> dict[str, Any]:
        """Return the extra parameters of the last set-up, the only call that has them; empty before the first."""
        return self._get(project_id, "extra_params", default={})

    def save_versions(self, project_id: str, versions: Sequence[str]) -> None:
        """Save the model versions of a project's last set-up, if they changed."""
        if self.versions(project_id) != list(versions):
            self._save(project_id, {"versions": list(versions)})

    def versions(self, project_id: str) -> list[str]:
        """Return the model versions of a project's last set-up."""
        return self._get(project_id, "versions", default=[])

    def all_versions(self) -> list[str]:
        """Return the model versions of all projects' last set-ups."""
        rows = self._database.rows(sa.select(PROJECTS.c.versions))
        return sorted({version for (versions,) in rows for version in versions})

    def learning(self, project_id: str) -> bool:
        """Return whether the project learns from annotations, as it does unless that was switched off."""
        return self._get(project_id, "learning", default=True)

    def set_learning(self, project_id: str, *, enabled: bool) -> None:
        """Switch learning on or off for a project."""
        self._save(project_id, {"learning": enabled})

    def restore(self, project: dict[str, Any]) -> None:
        """Save a project's row, with a new revision: its feedback is lost."""
        self._save(project["project_id"], {k: v for k, v in project.items() if k not in {"project_id", "revision"}})

    def forget(self, project_id: str) -> bool:
        """Delete a project with all that was learned from it; return whether it was known."""
        tables = LABELS, ANNOTATIONS, PROJECTS
        with self._database.transaction() as connection:
            counts = [connection.execute(table.delete().where(table.c.project_id == project_id)) for table in tables]
            return any(result.rowcount for result in counts)

    def projects(self) -> list[str]:
        """Return the ids of all known projects."""
        return [
            project_id for (project_id,) in self._database.rows(sa.select(PROJECTS.c.project_id).order_by("project_id"))
        ]

    def revision(self, project_id: str) -> int:
        """Return a number that changes whenever a project's enabled feedback does, also with another database."""
        return self._get(project_id, "revision", default=0)

    def _get(self, project_id: str, column: str, *, default: Any) -> Any:
        rows = self._database.rows(sa.select(PROJECTS.c[column]).where(PROJECTS.c.project_id == project_id))
        return rows[0][0] if rows else default

    def _save(self, project_id: str, values: dict[str, Any]) -> None:
        row = self._database.insert(PROJECTS).values(project_id=project_id, **values)
        self._database.execute(row.on_conflict_do_update(index_elements=[PROJECTS.c.project_id], set_=values))
