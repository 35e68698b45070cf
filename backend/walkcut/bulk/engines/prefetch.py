"""Prefetching: a step for coming values in threads, ahead of their use."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Value = TypeVar("Value")
Result = TypeVar("Result")

THREADS = 4  # that read images for one process with a model


def prefetched(pool: ThreadPoolExecutor, step: Callable[[Value], Result], values: Iterable[Value]) -> Iterator[Result]:
    """Yield the step's results in order, while the pool works on the next few values."""
    pending: deque[Future[Result]] = deque()
    for value in values:
        pending.append(pool.submit(step, value))
        if len(pending) > THREADS:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()
