import threading

import pytest

from tests.builders.processes import start_thread, wait_for
from walkcut.errors import BusyError
from walkcut.images import Deadline
from walkcut.inference.queue import Priority, PriorityLock

PASSED = Priority(deadline=Deadline(0, lambda: 0.0))
SOON = 0.05  # seconds until a deadline that always passes, however long the machine takes


def test_annotators_go_before_batches_that_came_first() -> None:
    lock, order, callers = PriorityLock(), list[str](), list[threading.Thread]()
    lock.acquire(Priority())

    def wait(name: str) -> None:
        lock.acquire(Priority(urgent=name.startswith("annotator")))
        order.append(name)
        lock.release()

    for waiting, name in enumerate(("batch 1", "batch 2", "annotator 1", "annotator 2")):
        callers.append(start_thread(lambda name=name: wait(name)))  # type: ignore[misc]
        wait_for(name, lambda: lock.waiting(urgent=True) + lock.waiting(urgent=False) == waiting + 1, 30)  # noqa: B023
    assert (lock.waiting(urgent=True), lock.waiting(urgent=False)) == (2, 2)
    lock.release()
    for caller in callers:
        caller.join(30)
    assert order == ["annotator 1", "annotator 2", "batch 1", "batch 2"]


def test_a_waiter_leaves_the_queue_at_its_deadline() -> None:
    lock = PriorityLock()
    lock.acquire(Priority())
    for priority in (PASSED, Priority(deadline=Deadline(SOON))):
        with pytest.raises(BusyError, match="the request timed out"):
            lock.acquire(priority)
    assert lock.waiting(urgent=False) == 0
    lock.release()
    lock.acquire(Priority())


def test_at_the_end_all_are_refused() -> None:
    lock, refused = PriorityLock(), threading.Event()
    lock.acquire(Priority())

    def wait() -> None:
        with pytest.raises(BusyError, match="shutting down"):
            lock.acquire(Priority())
        refused.set()

    caller = start_thread(wait)
    wait_for("the caller", lambda: lock.waiting(urgent=False), 30)
    lock.close()
    assert refused.wait(30)
    with pytest.raises(BusyError, match="shutting down"):
        lock.acquire(Priority())
    caller.join(30)
