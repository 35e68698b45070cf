import subprocess
import sys
import threading

import pytest

from walkcut.inference import malloc
from walkcut.inference.malloc import periodic_malloc_trim

FREED = """
from pathlib import Path
from walkcut.inference.malloc import malloc_trim, limit_malloc_arenas

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

{before}
bytearray(b"x") * 2_000_000  # from now on glibc, left to itself, keeps blocks of this size
before = resident()
blocks = [bytearray(b"x") * 1_000_000 for _ in range(100)]
last = bytearray(b"x") * 1_000_000
most = resident()
del blocks
{after}
print(most - before, resident() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc keeps what was freed")
@pytest.mark.parametrize(("before", "after"), [("limit_malloc_arenas()", ""), ("", "malloc_trim()")])
def test_freed_memory_goes_back_to_the_system(before: str, after: str) -> None:
    program = FREED.format(before=before, after=after)
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    most, left = map(int, process.stdout.split())
    assert most > 100_000_000
    assert left < 10_000_000


def test_memory_is_given_back_again_and_again_until_it_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    times, often = threading.Semaphore(0), 3
    monkeypatch.setattr(malloc, "malloc_trim", times.release)
    with periodic_malloc_trim(interval=0.001):
        assert all(times.acquire(timeout=30) for _ in range(often))
    assert "memory" not in {thread.name for thread in threading.enumerate()}
