"""Where the time goes, and what fails: stages and failures are marked, and whoever measures is told of them."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar

Observer = Callable[[str], AbstractContextManager[None]]
Counter = Callable[[Exception], None]

_observer: ContextVar[Observer | None] = ContextVar("stages", default=None)
_counter: ContextVar[Counter | None] = ContextVar("failures", default=None)


def span(name: str) -> AbstractContextManager[None]:
    """Marks what runs inside as the stage `name`, for the observer if there is one."""
    observer = _observer.get()
    return nullcontext() if observer is None else observer(name)


@contextmanager
def record_spans(observer: Observer) -> Iterator[None]:
    """Every stage that runs inside, in this thread, runs within what `observer` gives for its name."""
    token = _observer.set(observer)
    try:
        yield
    finally:
        _observer.reset(token)


def record_failure(error: Exception) -> None:
    """Marks an answer as failed for this reason, for the counter if there is one."""
    counter = _counter.get()
    if counter is not None:
        counter(error)


@contextmanager
def count_failures(counter: Counter) -> Iterator[None]:
    """Every failure that is marked inside, in this thread, is told to `counter`."""
    token = _counter.set(counter)
    try:
        yield
    finally:
        _counter.reset(token)
