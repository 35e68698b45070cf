"""A database file with wrong content is named as damaged, and set aside on request."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import datetime, timezone
from pathlib import Path

import pytest
from click.testing import CliRunner

from walkcut.cli import main
from walkcut.errors import DamagedDatabaseError, SettingsError, StoreError
from walkcut.storage import AnnotationRow, ProjectStore
from walkcut.storage.repair import repair_database

NAME = "walkcut.sqlite3"
ROW = AnnotationRow("3", 1, 2, datetime(2026, 11, 20, tzinfo=timezone.utc), {"more": list(range(9999))})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A database with a project that does not learn, and an annotation."""
    with closing(ProjectStore(tmp_path)) as store:
        store.save_setup("3", "<View/>", {"max_regions": 3})
        store.set_learning("3", enabled=False)
        store.annotations.save(ROW)
    return tmp_path / NAME


def overwrite(start: int, length: int) -> Callable[[Path], None]:
    def damage(file: Path) -> None:
        with file.open("r+b") as opened:
            opened.seek(start)
            opened.write(b"\x5a" * length)

    return damage


def drop_revisions(file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("DROP TABLE alembic_version")


def drop_annotations(file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("DROP TABLE annotations")


def drop_column(file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("ALTER TABLE annotations DROP COLUMN problem")


DAMAGE: dict[str, Callable[[Path], object]] = {
    "text": lambda file: file.write_text("no database"),
    "other file": lambda file: file.write_bytes(b"\x89PNG\r\n\x1a\n" * 1000),
    "cut off": lambda file: file.write_bytes(file.read_bytes()[:700]),
    "header": overwrite(0, 100),
    "schema": overwrite(100, 3000),
    "another program's": drop_revisions,
    "without a table": drop_annotations,
    "without a column": drop_column,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_database_is_named_and_set_aside_on_request(file: Path, damage: Callable[[Path], object]) -> None:
    damage(file)
    content = file.read_bytes()
    with pytest.raises(DamagedDatabaseError, match=rf"{NAME} is damaged \(.*: stop walkcut .*`walkcut repair`"):
        ProjectStore(file.parent)
    result = CliRunner().invoke(main, ["repair"], env={"WALKCUT_STATE_DIR": str(file.parent)})
    assert result.exit_code == 0, result.output
    (aside,) = file.parent.glob(f"{NAME}.damaged-????????T??????")
    assert str(aside) in result.stdout
    assert aside.read_bytes() == content
    with closing(ProjectStore(file.parent)) as store:
        assert store.annotations.known("3") == {}


def test_settings_of_projects_are_kept_where_they_can_be_read(file: Path) -> None:
    drop_revisions(file)
    repair = repair_database(file.parent)
    assert repair is not None
    assert repair.project_ids == ("3",)
    with closing(ProjectStore(file.parent)) as store:
        assert (store.label_config("3"), store.extra_params("3")) == ("<View/>", {"max_regions": 3})
        assert not store.learning("3"), "privacy: it was switched off"


def test_damage_beyond_the_header_is_found_too(file: Path) -> None:
    overwrite(file.stat().st_size - 8192, 8192)(file)
    assert repair_database(file.parent) is not None


@pytest.mark.parametrize(
    ("change", "query"),
    [
        (
            "UPDATE annotations SET feedback = '', learned_updated = updated",
            lambda store: store.annotations.all_feedback("3"),
        ),
        ("UPDATE annotations SET updated = 'soon'", lambda store: store.annotations.known("3")),
        ("UPDATE projects SET extra_params = '{'", lambda store: store.extra_params("3")),
    ],
)
def test_a_value_that_was_overwritten_is_named_and_repaired(
    file: Path, change: str, query: Callable[[ProjectStore], object]
) -> None:
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute(change)
    with (
        closing(ProjectStore(file.parent)) as store,
        pytest.raises(StoreError, match=r"cannot be read.*walkcut repair"),
    ):
        query(store)
    assert repair_database(file.parent) is not None


def test_a_folder_in_place_of_the_database_is_named(file: Path) -> None:
    file.unlink()
    file.mkdir()
    with pytest.raises(SettingsError, match=rf"{NAME} is not a file: move it away"):
        ProjectStore(file.parent)


def test_a_sound_database_is_left_alone(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = CliRunner().invoke(main, ["repair"], env={"WALKCUT_STATE_DIR": str(file.parent)})
    assert "is not damaged: nothing was changed" in result.stdout
    assert [path.name for path in file.parent.iterdir()] == [NAME]
    environment = {"WALKCUT_STATE_DIR": str(file.parent), "WALKCUT_DATABASE_URL": "postgresql://me:hush@host/name"}
    result = CliRunner().invoke(main, ["repair"], env=environment)
    assert result.exit_code == 1
    assert "with its own tools" in result.stderr


def test_an_empty_file_is_taken_for_a_new_database_but_not_without_a_word(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file.write_bytes(b"")
    with closing(ProjectStore(file.parent)) as store:
        assert store.projects() == []
    assert f"{file} is empty (0 bytes)" in caplog.text
    caplog.clear()
    ProjectStore(file.parent).close()
    ProjectStore(file.parent / "new").close()
    assert caplog.text == ""
