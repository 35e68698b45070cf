"""What tests of backbones share."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from walkcut.telemetry.spans import record_spans


@pytest.fixture
def stages() -> Iterator[list[str]]:
    """The stages of the test's work so far, each when it begins and, if it comes to its end, then."""
    seen: list[str] = []

    @contextmanager
    def note(name: str) -> Iterator[None]:
        seen.append(name)
        yield
        seen.append(f"/{name}")

    with record_spans(note):
        yield seen
