"""Memory that a piece of work takes, in bytes."""

import gc
import tracemalloc
from collections.abc import Callable
from pathlib import Path


def traced(work: Callable[[], object]) -> tuple[int, int]:
    """Return the memory that the result of some work holds, and the peak: of Python's objects and NumPy's arrays."""
    gc.collect()
    tracemalloc.start()
    try:
        result = work()
        gc.collect()
        held, peak = tracemalloc.get_traced_memory()
        del result
        return held, peak
    finally:
        tracemalloc.stop()


def resident_peak(work: Callable[[], object]) -> int:
    """Return by how much some work raises the resident memory of the process at its peak, torch's tensors included."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = _status("VmRSS")
    work()
    return _status("VmHWM") - before


def _status(name: str) -> int:
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[name].split()[0]) * 1024
