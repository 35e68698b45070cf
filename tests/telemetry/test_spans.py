from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from walkcut.telemetry.spans import record_spans, span, timed, timer


def test_an_observer_sees_each_span_until_it_is_removed() -> None:
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


def test_an_observer_is_removed_when_the_work_fails() -> None:
    def refuse(name: str) -> Iterator[None]:
        raise AssertionError(name)

    with pytest.raises(ZeroDivisionError), record_spans(contextmanager(refuse)):
        raise ZeroDivisionError
    with span("cut"):
        pass


def test_a_timer_records_spans_in_the_order_in_which_they_end(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([1.0, 2.0, 5.0, 8.0])
    monkeypatch.setattr("walkcut.telemetry.spans.time.perf_counter", lambda: next(clock))
    seen: list[tuple[str, float]] = []
    with record_spans(timer(lambda *stage: seen.append(stage))), span("tree"), span("cut"):
        pass
    assert seen == [("cut", 3.0), ("tree", 7.0)]


def test_a_failed_block_is_timed_too() -> None:
    seconds: dict[str, float] = {}
    with pytest.raises(ZeroDivisionError), timed("cut", seconds.__setitem__):
        raise ZeroDivisionError
    assert list(seconds) == ["cut"]
