"""Where the time goes: the stages of the work are marked, and whoever measures is told of them."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar

Observer = Callable[[str], AbstractContextManager[None]]

_observer: ContextVar[Observer | None] = ContextVar("stages", default=None)


def stage(name: str) -> AbstractContextManager[None]:
    """Marks what runs inside as the stage `name`, for the observer if there is one."""
    observer = _observer.get()
    return nullcontext() if observer is None else observer(name)


@contextmanager
def observed(observer: Observer) -> Iterator[None]:
    """Every stage that runs inside, in this thread, runs within what `observer` gives for its name."""
    token = _observer.set(observer)
    try:
        yield
    finally:
        _observer.reset(token)
