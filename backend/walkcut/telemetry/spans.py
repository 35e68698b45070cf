"""Spans: named stages of the work, timed by observers."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from functools import partial

Observer = Callable[[str], AbstractContextManager[object]]
Recorder = Callable[[str, float], None]  # takes a span's name and its seconds

_observer: ContextVar[Observer] = ContextVar("observer", default=nullcontext)


def span(name: str) -> AbstractContextManager[object]:
    """Mark what runs inside as a span, for the observer of this thread if there is one.

    >>> with record_spans(timer(lambda name, seconds: print(name, seconds < 1))), span("decode"):
    ...     pass
    decode True
    """
    return _observer.get()(name)


@contextmanager
def record_spans(observer: Observer) -> Iterator[None]:
    """Run each span inside, in this thread, within the context manager that the observer returns for its name."""
    token = _observer.set(observer)
    try:
        yield
    finally:
        _observer.reset(token)


@contextmanager
def timed(name: str, record: Recorder) -> Iterator[None]:
    """Pass the name and the seconds of what runs inside to `record`, even if it fails."""
    begin = time.perf_counter()
    try:
        yield
    finally:
        record(name, time.perf_counter() - begin)


def timer(record: Recorder) -> Observer:
    """Return an observer that passes each span's name and seconds to `record`."""
    return partial(timed, record=record)
