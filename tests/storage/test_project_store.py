import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path

import pytest

from tests.builders.postgres import Postgres
from walkcut.storage import AnnotationRow, ProjectStore


def row(annotation_id: int = 1) -> AnnotationRow:
    return AnnotationRow("3", annotation_id, 2, datetime(2026, 11, 20, tzinfo=timezone.utc), {"n": annotation_id})


def test_the_setup_is_the_last_one(store: ProjectStore) -> None:
    assert (store.label_config("3"), store.extra_params("3")) == ("", {})
    for setup in (("<é/>", {"a": 1}), ("<é/>", {"a": 1}), ("", {"a": 1}), ("<View/>", {"b": 2}), ("<View/>", {})):
        store.save_setup("3", *setup)
        assert (store.label_config("3"), store.extra_params("3")) == setup
    assert store.label_config("4") == ""


def test_an_unchanged_setup_writes_nothing(store: ProjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.save_setup("3", "<View/>", {"a": 1})
    monkeypatch.setattr(store, "_save", None)
    store.save_setup("3", "<View/>", {"a": 1})
    store.save_setup("4", "", {})


def test_projects_learn_until_that_is_switched_off(store: ProjectStore) -> None:
    assert store.learning("3")
    for on in (False, True, False):
        store.set_learning("3", enabled=on)
        store.save_setup("3", f"<{on}/>", {})
        assert store.learning("3") is on
    assert store.learning("4")


def test_a_project_whose_learning_was_switched_before_its_setup_has_an_empty_one(store: ProjectStore) -> None:
    store.set_learning("3", enabled=False)
    assert (store.label_config("3"), store.extra_params("3"), store.projects()) == ("", {}, ["3"])


def test_many_threads_open_and_write_at_once(opened: Callable[[], ProjectStore]) -> None:
    def write(number: int) -> None:
        store = opened()
        store.save_setup("1", "<View/>", {"n": number})
        store.annotations.save(row(number))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(24)))
    assert sorted(opened().annotations.known("3")) == list(range(24))


def test_a_writer_waits_for_another(tmp_path: Path) -> None:
    store = ProjectStore(tmp_path)
    other = sqlite3.connect(tmp_path / "walkcut.sqlite3", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    writer = threading.Thread(target=store.annotations.save, args=[row()])
    writer.start()
    writer.join(0.3)
    assert store.annotations.known("3") == {}, "a reader does not wait"
    other.execute("COMMIT")
    other.close()
    writer.join()
    assert len(store.annotations.known("3")) == 1
    store.close()


def test_the_store_goes_on_after_a_restart_of_the_server(postgres: Postgres) -> None:
    postgres.empty()
    store = ProjectStore(Path("nowhere"), postgres.url.replace("postgresql:", "postgres:"))
    store.annotations.save(row(1))
    postgres.stop()
    postgres.start()
    assert list(store.annotations.known("3")) == [1]
    store.annotations.save(row(2))
    store.close()
    assert not Path("nowhere").exists()
