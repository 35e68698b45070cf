import sqlite3
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

from tests.builders.postgres import PASSWORD, Postgres
from tests.builders.processes import free_port, wait_for
from walkcut.errors import SettingsError, StoreError
from walkcut.storage import AnnotationRow, ProjectStore, database


def row(submission: dict[str, Any] | None = None, number: int = 1) -> AnnotationRow:
    return AnnotationRow("3", number, 2, datetime(2026, 11, 20, tzinfo=timezone.utc), submission or {})


def test_a_folder_that_cannot_be_used_is_named_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "state").write_bytes(b"a file")
    with pytest.raises(
        SettingsError, match=r"state cannot be used to keep state .*: check that there is room .* set WALKCUT_STATE_DIR"
    ):
        ProjectStore(tmp_path / "state")


def test_an_sqlite_file_may_be_elsewhere(tmp_path: Path) -> None:
    store = ProjectStore(tmp_path / "state", f"sqlite:///{tmp_path / 'other.sqlite3'}")
    store.annotations.save(row())
    store.close()
    assert [path.name for path in tmp_path.iterdir()] == ["other.sqlite3"]


@pytest.mark.parametrize(
    "url",
    [
        "hush",
        "mysql://me:hush@host/name",
        "sqlite://",
        "sqlite:///:memory:",
        "postgresql://me:hush@host:port/name",
        "postgresql://me:hu@sh@host/name",
        "postgresql://me:hush@host",
    ],
)
def test_an_unusable_url_is_not_quoted(tmp_path: Path, url: str) -> None:
    with pytest.raises(
        SettingsError, match=r"WALKCUT_DATABASE_URL names no database .*: write postgresql://"
    ) as caught:
        ProjectStore(tmp_path, url)
    assert "sh" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_server_that_does_not_answer_is_named_without_the_password(tmp_path: Path) -> None:
    url = f"postgresql://me:hush@127.0.0.1:{free_port()}/name?password=hush"
    expected = r"database postgresql\+psycopg://me:\*\*\*@127.0.0.1:\d+/name cannot be used \(.*\): check that it is up"
    with pytest.raises(SettingsError, match=expected) as caught:
        ProjectStore(tmp_path, url)
    assert "hush" not in f"{caught.value} {caught.value.__cause__}"


def test_a_wrong_password_is_not_shown(tmp_path: Path, postgres: Postgres) -> None:
    with pytest.raises(
        SettingsError, match=r"password authentication failed .* WALKCUT_DATABASE_URL is right"
    ) as caught:
        ProjectStore(tmp_path, postgres.url.replace(PASSWORD, "hush"))
    assert "hush" not in f"{caught.value} {caught.value.__cause__}"


def test_keepalives_are_set_unless_the_url_sets_them(tmp_path: Path, postgres: Postgres) -> None:
    def parameters_of(url: str) -> tuple[str, ...]:
        store = ProjectStore(tmp_path, url)
        with store._database._engine.connect() as connection:
            parameters = connection.connection.driver_connection.info.get_parameters()  # type: ignore[union-attr]
        store.close()
        return parameters["keepalives_idle"], parameters["tcp_user_timeout"]

    postgres.empty()
    assert parameters_of(postgres.url) == ("15", "30000")
    assert parameters_of(f"{postgres.url}?keepalives_idle=100") == ("100", "30000")


def test_without_its_driver_postgresql_is_refused_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(SettingsError, match=r"postgresql needs psycopg: pip install 'walkcut\[postgres\]'"):
        ProjectStore(tmp_path, "postgresql://me:hush@host/name")


def test_errors_hold_no_data(opened: Callable[[], ProjectStore]) -> None:
    store = opened()
    with store._database._engine.begin() as connection:
        connection.execute(sqlalchemy.text("DROP TABLE annotations"))
    with pytest.raises((sqlalchemy.exc.DBAPIError, StoreError)) as caught:
        store.annotations.save(row({"token": "hush"}))
    assert "hush" not in str(caught.value)


def test_a_database_that_another_program_locks_is_named_and_works_again(tmp_path: Path) -> None:
    store = ProjectStore(tmp_path, f"sqlite:///{tmp_path / 'state.sqlite3'}?timeout=0.1")
    other = sqlite3.connect(tmp_path / "state.sqlite3")
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match=r"database sqlite:.*state.sqlite3 cannot be used now \(database is locked\)"):
        store.annotations.save(row({"token": "hush"}))
    assert store.annotations.known("3") == {}, "readers do not wait"
    other.rollback()
    other.close()
    store.annotations.save(row())
    assert list(store.annotations.known("3")) == [1]
    store.close()


class Failing(sqlite3.Connection):
    """A connection that refuses its first statements for a given reason."""

    def __init__(self, reason: str, times: int) -> None:
        super().__init__(":memory:")
        self.reason, self.times, self.calls = reason, times, 0

    def execute(self, statement: str, _parameters: Any = ()) -> sqlite3.Cursor:
        self.calls += 1
        if self.calls <= self.times:
            raise sqlite3.OperationalError(self.reason)
        return super().execute(statement)


def test_only_a_lock_on_a_new_file_is_waited_for() -> None:
    locked, broken = Failing("database is locked", 2), Failing("disk I/O error", 2)
    database._set_pragmas(locked, None)
    with pytest.raises(sqlite3.OperationalError, match="disk I/O error"):
        database._set_pragmas(broken, None)
    assert (locked.calls, broken.calls) == (5, 1)
    locked.close()
    broken.close()


def test_readers_do_not_wait_for_writers_that_wait_for_a_lock(tmp_path: Path) -> None:
    store = ProjectStore(tmp_path, f"sqlite:///{tmp_path / 'state.sqlite3'}?timeout=60")
    other = sqlite3.connect(tmp_path / "state.sqlite3")
    other.execute("BEGIN IMMEDIATE")
    writers = 20  # more than the pool keeps
    with ThreadPoolExecutor(writers) as pool:
        written = [pool.submit(store.annotations.save, row(number=number)) for number in range(writers)]
        wait_for("all to wait", lambda: store._database._engine.pool.checkedout() == writers, 30)  # type: ignore[attr-defined]
        assert store.annotations.known("3") == {}
        other.rollback()
        for future in written:
            future.result()
    other.close()
    assert len(store.annotations.known("3")) == writers
    store.close()
