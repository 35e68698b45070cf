"""How the C library takes memory from the system, and gives it back."""

import ctypes
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8  # of glibc's malloc.h
_LARGE = 256 << 10  # bytes


def limit_malloc_arenas() -> None:
    """Have glibc keep a process of many threads as small as it can, from now on.

    By itself it takes memory for threads from eight arenas a core, and soon from these even for masks and images;
    between what is still in use, what was freed is then lost. From now on there are two, and large blocks are by
    themselves. A model, which works with large blocks all the time, would be half as fast.
    """
    if sys.platform == "linux":
        with suppress(AttributeError):  # another C library
            adjust = ctypes.CDLL(None).mallopt
            adjust(_M_ARENA_MAX, 2)
            adjust(_M_MMAP_THRESHOLD, _LARGE)


def malloc_trim() -> None:
    """Give back to the system what was freed until now: after work that takes much, and before a rest."""
    if sys.platform == "linux":
        with suppress(AttributeError):
            ctypes.CDLL(None).malloc_trim(0)


@contextmanager
def periodic_malloc_trim(every: float) -> Iterator[None]:
    """Give back memory `every` so many seconds: for a process that never rests, where small freed blocks add up."""
    over = threading.Event()

    def run() -> None:
        while not over.wait(every):
            malloc_trim()

    thread = threading.Thread(target=run, name="memory")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
