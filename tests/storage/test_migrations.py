import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from alembic import op
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.schema import SchemaItem

from walkcut.errors import SettingsError
from walkcut.storage import ProjectStore, migrations
from walkcut.storage.tables import METADATA

LOADED = """
import sys
from pathlib import Path
from walkcut.storage import ProjectStore
ProjectStore(Path(sys.argv[1])).close()
print(*sorted({name.partition(".")[0] for name in sys.modules} & {"alembic", "mako"}))
"""


@contextmanager
def connected(store: ProjectStore) -> Iterator[Connection]:
    with store._database._engine.begin() as connection:
        yield connection


def test_the_migrations_make_the_tables_of_the_models(store: ProjectStore) -> None:
    with connected(store) as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []


def test_the_latest_revision_is_the_one_that_is_expected() -> None:
    assert ScriptDirectory(str(Path(migrations.__file__).parent)).get_current_head() == migrations.HEAD


def test_a_database_of_a_later_revision_is_left_alone(opened: Callable[[], ProjectStore]) -> None:
    with connected(opened()) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(SettingsError, match=r"needs a newer walkcut \(its tables have revision 9999\): upgrade"):
        opened()


def test_a_migration_that_fails_leaves_nothing_behind(
    tmp_path: Path, opened: Callable[[], ProjectStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    create_table = op.create_table

    def fail(name: str, *columns: SchemaItem) -> None:
        if name == "projects":
            raise RuntimeError("killed")
        create_table(name, *columns)

    with monkeypatch.context() as failing:
        failing.setattr(op, "create_table", fail)
        with pytest.raises(RuntimeError, match="killed"):
            opened()
    store = opened()
    store.set_learning("3", enabled=False)
    assert store.projects() == ["3"]


def test_alembic_is_loaded_only_when_there_is_something_to_do(tmp_path: Path) -> None:
    loaded = [
        subprocess.run([sys.executable, "-c", LOADED, tmp_path], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    assert loaded == ["alembic mako\n", "\n"]


def test_the_wheel_holds_the_migrations(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=root, capture_output=True, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    scripts = {path.name for path in Path(migrations.__file__).parent.glob("versions/*.py")}
    packed = {Path(name).name for name in zipfile.ZipFile(wheel).namelist() if "/migrations/versions/" in name}
    assert packed == scripts
