"""Marked stages reach whoever measures, and nobody else."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from walkcut.telemetry.spans import count_failures, record_failure, record_spans, span


def test_an_observer_is_told_of_each_stage_until_it_leaves() -> None:
    seen: list[str] = []

    @contextmanager
    def note(name: str) -> Iterator[None]:
        seen.append(f"{name} begins")
        yield
        seen.append(f"{name} ends")

    with record_spans(note), span("walk"):
        seen.append("walking")
    with span("cut"):
        seen.append("cutting")

    assert seen == ["walk begins", "walking", "walk ends", "cutting"]


def test_an_observer_leaves_when_the_work_fails() -> None:
    def refuse(name: str) -> Iterator[None]:
        raise AssertionError(name)

    with pytest.raises(ZeroDivisionError), record_spans(contextmanager(refuse)):
        raise ZeroDivisionError
    with span("cut"):
        pass


def test_a_counter_is_told_of_failures_until_it_leaves() -> None:
    seen: list[Exception] = []
    failure = ValueError("no")
    with count_failures(seen.append):
        record_failure(failure)
    record_failure(failure)
    assert seen == [failure]
