"""Access to the model: one caller at a time, annotators before batches, then first come, first served."""

import threading
from bisect import insort
from dataclasses import dataclass
from itertools import count

from walkcut.errors import BusyError
from walkcut.images import Deadline


@dataclass(frozen=True)
class Priority:
    """Priority of a request: urgent requests go first, and none is answered after its deadline."""

    urgent: bool = False
    deadline: Deadline | None = None

    def remaining(self) -> float | None:
        """Return the seconds until the deadline; `None` without one. Raises `BusyError` after it."""
        try:
            return None if self.deadline is None else min(self.deadline.remaining(), threading.TIMEOUT_MAX)
        except TimeoutError as error:
            raise out_of_time() from error


class PriorityLock:
    """Lock that goes to urgent waiters first, and otherwise to the one that has waited longest."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: list[tuple[bool, int]] = []  # (not urgent, arrival); the next holder first
        self._arrivals = count()
        self._held = False
        self.closed = False  # for good

    def waiting(self, *, urgent: bool) -> int:
        """Return the number of waiters of this urgency."""
        with self._changed:
            return sum(not_urgent != urgent for not_urgent, _ in self._waiting)

    def acquire(self, priority: Priority) -> None:
        """Wait for the lock. Raises `BusyError` at the deadline, and when the lock is closed."""
        with self._changed:
            ticket = (not priority.urgent, next(self._arrivals))
            insort(self._waiting, ticket)

            def is_over() -> bool:
                return self.closed or (not self._held and self._waiting[0] == ticket)

            try:
                in_time = self._changed.wait_for(is_over, priority.remaining())
                if self.closed:
                    raise shutting_down()
                if not in_time:
                    raise out_of_time()
                self._held = True
            finally:
                self._waiting.remove(ticket)
                self._changed.notify_all()

    def release(self) -> None:
        """Hand the lock to the next waiter."""
        with self._changed:
            self._held = False
            self._changed.notify_all()

    def close(self) -> None:
        """Refuse all current and future waiters with `BusyError`."""
        with self._changed:
            self.closed = True
            self._changed.notify_all()


def shutting_down() -> BusyError:
    """Return the error for requests while walkcut shuts down."""
    return BusyError("walkcut is shutting down: try again")


def out_of_time() -> BusyError:
    """Return the error for a request whose deadline has passed."""
    return BusyError("the request timed out: try again")
