"""The database is locked, or restarted: nothing acknowledged is lost, and work goes on when it is back."""

import sqlite3
import time
from contextlib import closing
from pathlib import Path

from tests.builders.postgres import Postgres
from tests.builders.processes import wait_for
from tests.faults.backend import IMAGE, PATIENCE_S, Backend, running, submitting


def test_a_locked_database_is_told_and_costs_no_prediction(backend: Backend) -> None:
    begin = len(backend.log)
    assert backend.set_up().ok
    assert backend.submit(1).ok
    backend.learns(1)
    with closing(sqlite3.connect(backend.state.parent / "state.sqlite3")) as other:
        other.execute("BEGIN IMMEDIATE")
        assert backend.submit(2).status_code == 503
        assert backend.predict(IMAGE)[0]
        assert backend.predict(IMAGE, line="3")[0]["result"]
        assert backend.set_up().ok
        other.rollback()
    backend.says("state.sqlite3 cannot be used now (database is locked)", after=begin)
    assert backend.submit(3).ok
    backend.learns(3)
    assert 2 not in backend.stored()[1]


def test_a_lock_while_it_learns_loses_no_feedback(backend: Backend) -> None:
    with closing(sqlite3.connect(backend.state.parent / "state.sqlite3")) as other:
        for number in range(10, 14):
            assert backend.submit(number).ok
            other.execute("BEGIN IMMEDIATE")  # as a back-up does
            begin = len(backend.log)
            if number % 2:
                backend.says("learning is interrupted, and resumes", "database is locked", after=begin)
            other.rollback()
    backend.learns(*range(10, 14))
    backend.says("learning has resumed")


def test_postgresql_is_restarted_under_load(tmp_path: Path, postgres: Postgres) -> None:
    postgres.empty()
    with running(tmp_path, WALKCUT_DATABASE_URL=postgres.url) as backend:
        assert backend.set_up().ok
        with submitting(backend) as acknowledged:
            for _ in range(2):
                known = len(acknowledged)
                wait_for("submissions", lambda: len(acknowledged) > known + 2, PATIENCE_S)  # noqa: B023
                begin = len(backend.log)
                postgres.stop()
                backend.says("postgres cannot be used now", "check that it is up", after=begin)
                postgres.start()
            known = len(acknowledged)
            wait_for("submissions", lambda: len(acknowledged) > known + 2, PATIENCE_S)
        assert backend.predict(IMAGE)[0]
        backend.learns(*acknowledged)
        assert "geheim" not in backend.log
        assert "Traceback" not in backend.log


def test_a_postgresql_that_hangs_costs_no_prediction(tmp_path: Path, postgres: Postgres) -> None:
    postgres.empty()
    with running(tmp_path, WALKCUT_DATABASE_URL=postgres.url) as backend:
        assert backend.set_up().ok
        assert backend.predict(IMAGE)[0]
        with postgres.hanging():
            begin = time.monotonic()
            assert backend.set_up().ok
            assert backend.predict(IMAGE)[0]
            assert backend.predict(IMAGE, line="3")[0]["result"]
            assert time.monotonic() - begin < 20, "seconds without load: two kinds of calls, once each"
            assert backend.submit(1).status_code == 503
        assert backend.submit(2).ok
        backend.learns(2)
