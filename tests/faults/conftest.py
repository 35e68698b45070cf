"""One backend for all faults that come from outside; those that break its own folder or process start their own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.backend import CONFIG, IMAGE, PROJECT, Backend, running
from tests.storage.conftest import postgres  # noqa: F401  # a fixture
from walkcut.storage import ProjectStore


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    """A backend with short time-outs, on SQLite, which has seen `IMAGE`."""
    folder = tmp_path_factory.mktemp("shared")
    database = f"sqlite:///{folder / 'state.sqlite3'}?timeout=1"
    with running(
        folder,
        WALKCUT_DATABASE_URL=database,
        WALKCUT_FETCH_TIMEOUT="1",
        WALKCUT_PREDICT_TIMEOUT="8",
    ) as backend:
        assert backend.predict(IMAGE)[0]
        yield backend


@pytest.fixture
def backend(shared: Backend) -> Backend:
    """The shared backend, at work."""
    assert shared.process is not None
    assert shared.process.poll() is None, "an earlier test has ended it"
    return shared


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder for a backend of its own, whose project is known."""
    store = ProjectStore(tmp_path / "state")
    store.save_setup(PROJECT, CONFIG, {})
    store.close()
    return tmp_path
