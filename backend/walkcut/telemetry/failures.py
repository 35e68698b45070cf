"""Failures that are answered or logged instead of raised, counted by observers."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Counter = Callable[[Exception], None]

_counter: ContextVar[Counter] = ContextVar("counter", default=lambda _error: None)


def record_failure(error: Exception) -> None:
    """Report an error to the counter of this thread if there is one."""
    _counter.get()(error)


@contextmanager
def count_failures(counter: Counter) -> Iterator[None]:
    """Report each failure that is recorded inside, in this thread, to `counter`."""
    token = _counter.set(counter)
    try:
        yield
    finally:
        _counter.reset(token)
