import subprocess
import sys

import pytest

FREED = """
from pathlib import Path
from walkcut.allocator import give_back_memory

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

give_back_memory()
bytearray(b"x") * 2_000_000  # from now on glibc, left to itself, keeps blocks of this size
before = resident()
blocks = [bytearray(b"x") * 1_000_000 for _ in range(100)]
last = bytearray(b"x") * 1_000_000
most = resident()
del blocks
print(most - before, resident() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc keeps what was freed")
def test_freed_memory_goes_back_to_the_system() -> None:
    process = subprocess.run([sys.executable, "-c", FREED], capture_output=True, text=True, check=True)
    most, left = map(int, process.stdout.split())
    assert most > 100_000_000
    assert left < 10_000_000
