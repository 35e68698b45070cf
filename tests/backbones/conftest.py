"""Fixtures of the tests of backbones."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from walkcut.telemetry.spans import record_spans


@pytest.fixture
def stages() -> Iterator[list[str]]:
    """The spans of the test so far: `name` where one begins, and `/name` where it ends without an error."""
    names: list[str] = []

    @contextmanager
    def note(name: str) -> Iterator[None]:
        names.append(name)
        yield
        names.append(f"/{name}")

    with record_spans(note):
        yield names
