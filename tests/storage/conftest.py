"""Fixtures of storage: its tests run on SQLite and on a real PostgreSQL."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.builders.postgres import Postgres, running_postgres
from walkcut.storage import ProjectStore


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server; without Debian's package the test is skipped, or fails if it is required."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not programs:
        reason = "no PostgreSQL in /usr/lib/postgresql: `make unit` installs it"
        if os.environ.get("REQUIRE_POSTGRES") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    with running_postgres(programs[-1].parent) as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty database; empty for SQLite in the state folder."""
    if request.param == "sqlite":
        return ""
    server: Postgres = request.getfixturevalue("postgres")
    server.empty()
    return server.url


@pytest.fixture
def opened(tmp_path: Path, url: str) -> Iterator[Callable[[], ProjectStore]]:
    """A function that opens the same database again at each call."""
    stores: list[ProjectStore] = []

    def open_again() -> ProjectStore:
        stores.append(ProjectStore(tmp_path, url))
        return stores[-1]

    yield open_again
    for store in stores:
        store.close()


@pytest.fixture
def store(opened: Callable[[], ProjectStore]) -> ProjectStore:
    return opened()
