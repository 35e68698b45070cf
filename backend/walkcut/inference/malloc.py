"""Settings of glibc's malloc, and the return of freed memory to the system."""

import ctypes
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8  # of glibc's malloc.h
_LARGE = 256 << 10  # bytes
_LIBC: Any = ctypes.CDLL(None) if sys.platform == "linux" else None


def limit_malloc_arenas() -> None:
    """Limit glibc to two arenas and allocate large blocks by mmap, so that a process of many threads stays small.

    By default there are eight arenas per core, and freed masks and images stay in them as fragments. Not for the
    model's process: it allocates large blocks all the time, and would be half as fast.
    """
    with suppress(AttributeError):  # another C library
        _LIBC.mallopt(_M_ARENA_MAX, 2)
        _LIBC.mallopt(_M_MMAP_THRESHOLD, _LARGE)


def malloc_trim() -> None:
    """Return freed memory to the system; for use after work that needs much memory."""
    with suppress(AttributeError):
        _LIBC.malloc_trim(0)


@contextmanager
def periodic_malloc_trim(interval: float) -> Iterator[None]:
    """Trim every `interval` seconds within the block, in a thread: in a busy process small freed blocks add up."""
    stop = threading.Event()

    def run() -> None:
        while not stop.wait(interval):
            malloc_trim()

    thread = threading.Thread(target=run, name="memory")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
