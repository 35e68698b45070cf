"""Median time of repeated runs."""

import statistics
import time
from collections.abc import Callable


def median_seconds(action: Callable[[], object], *, runs: int = 7) -> float:
    """Return the median time of `runs` runs, after one that is not counted."""
    action()
    times = []
    for _ in range(runs):
        begin = time.perf_counter()
        action()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)
