"""How the C library takes memory from the system, and gives it back."""

import ctypes
import sys
from contextlib import suppress

_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8  # of glibc's malloc.h
_LARGE = 256 << 10  # bytes


def give_back_memory() -> None:
    """Have glibc give back to the system what this process has freed, so that it stays as small as it can.

    By itself it takes memory for threads from eight arenas a core, and soon from these even for masks and pictures;
    between what is still in use, what was freed is then lost. From now on there are two, and large blocks are by
    themselves. That is for a process of many threads: a model, which works with large blocks all the time, is slowed
    down by half.
    """
    if sys.platform == "linux":
        with suppress(AttributeError):  # another C library
            adjust = ctypes.CDLL(None).mallopt
            adjust(_M_ARENA_MAX, 2)
            adjust(_M_MMAP_THRESHOLD, _LARGE)
