"""When failed events are tried again."""

import time

MAX_ATTEMPTS = 150  # about a day
_MAX_PAUSE_S = 600.0


class RetrySchedule:
    """The failed events and their next attempts: after 2, 4, 8, … 600 s.

    Not tenacity, which blocks one call until it succeeds: here many events wait side by side, and may be discarded.
    """

    def __init__(self) -> None:
        self._failed: dict[int, tuple[int, float]] = {}  # attempts so far, and the time of the next

    def event_ids(self) -> list[int]:
        """Return the events that wait for another attempt."""
        return list(self._failed)

    def is_due(self, event_id: int) -> bool:
        """Return whether an event may be tried now; one that never failed may."""
        return event_id not in self._failed or self._failed[event_id][1] <= time.monotonic()

    def postpone(self, event_id: int) -> int:
        """Schedule the next attempt of an event that failed, and return the number of attempts so far."""
        attempts = self._failed.get(event_id, (0, 0.0))[0] + 1
        self._failed[event_id] = attempts, time.monotonic() + min(2**attempts, _MAX_PAUSE_S)
        return attempts

    def discard(self, event_id: int) -> None:
        """Forget an event that is done."""
        self._failed.pop(event_id, None)
