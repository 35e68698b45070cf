"""The revisions of the database's tables, one file each in `versions`, which Alembic brings a database up to.

To change the tables: edit `storage/tables.py`, add a file to `versions`, and set `HEAD` to its revision.
"""

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from walkcut.errors import SettingsError

HEAD = "0001"
_LOCK = {"sqlite": "BEGIN IMMEDIATE", "postgresql": "SELECT pg_advisory_xact_lock(1895112873)"}


def migrate(connection: Connection) -> None:
    """Upgrade the tables to `HEAD`, one process at a time and in the connection's transaction.

    Raises `SettingsError` for a revision that this walkcut does not know.
    """
    connection.exec_driver_sql(_LOCK[connection.dialect.name])
    revision = ""
    if inspect(connection).has_table("alembic_version"):
        revision = connection.scalar(text("SELECT version_num FROM alembic_version")) or ""
    if revision != HEAD:
        _upgrade(connection, revision)


def _upgrade(connection: Connection, current: str) -> None:
    # Imported when there is something to do: a start with up-to-date tables spends no time on Alembic.
    from alembic.config import Config  # noqa: PLC0415
    from alembic.runtime.environment import EnvironmentContext  # noqa: PLC0415
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    scripts = ScriptDirectory(str(Path(__file__).parent))
    if current and current not in {script.revision for script in scripts.walk_revisions()}:
        raise SettingsError(f"the database needs a newer walkcut (its tables have revision {current}): upgrade walkcut")
    # What Alembic's `upgrade` command does, without its env.py and alembic.ini.
    steps = scripts._upgrade_revs  # noqa: SLF001
    with EnvironmentContext(Config(), scripts, fn=lambda base, _: steps(HEAD, base)) as environment:
        environment.configure(connection=connection)
        environment.run_migrations()
