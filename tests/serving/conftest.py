"""Fixtures of serving."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.builders.backend import Backend, running
from walkcut.settings import Settings


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[Backend]:
    with running(tmp_path, Settings(state_dir=tmp_path)) as backend:
        yield backend
