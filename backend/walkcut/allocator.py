"""How the C library takes memory from the system, and gives it back."""

import ctypes
import sys
from contextlib import suppress

_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8  # of glibc's malloc.h
_LARGE = 256 << 10  # bytes


def take_little_memory() -> None:
    """Have glibc keep a process of many threads as small as it can, from now on.

    By itself it takes memory for threads from eight arenas a core, and soon from these even for masks and pictures;
    between what is still in use, what was freed is then lost. From now on there are two, and large blocks are by
    themselves. A model, which works with large blocks all the time, would be half as fast.
    """
    if sys.platform == "linux":
        with suppress(AttributeError):  # another C library
            adjust = ctypes.CDLL(None).mallopt
            adjust(_M_ARENA_MAX, 2)
            adjust(_M_MMAP_THRESHOLD, _LARGE)


def give_back_memory() -> None:
    """Give back to the system what was freed until now: after work that takes much, and before a rest."""
    if sys.platform == "linux":
        with suppress(AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
