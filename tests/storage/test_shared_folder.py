"""Several processes write, read, evict and open one folder of cut trees, or one quarantine, at the same time."""

import random
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import pytest

from tests.builders.plain_trees import plain_tree
from walkcut.errors import QuarantineError
from walkcut.storage import TreeCache, read_tree
from walkcut.storage.quarantine import Quarantine

PROCESSES, TREES = 4, 80
SIZE = len(plain_tree(3).to_bytes())


def write_and_open(folder: Path, quota: int, process: int) -> list[str]:
    """Write trees, open the cache again and again, and look for trees of all; return the keys of misread trees."""
    chance, misread = random.Random(process), list[str]()
    cache = TreeCache(folder, quota, max_memory=1)
    for index in range(TREES):
        tree = plain_tree(3)
        cache.put(f"{process}-{index}", tree, tree.to_bytes())
        key = f"{chance.randrange(PROCESSES)}-{chance.randrange(index + 1)}"
        found = TreeCache(folder, quota).get(key)
        if found is not None and found.size != (2, 3):
            misread.append(key)
    return misread


def quarantine(folder: Path, process: int) -> None:
    """Put images into quarantine of which only ten are kept."""
    for index in range(TREES):
        Quarantine(folder, max_files=10).add(f"{process}-{index}", "v1", "it hung")


@pytest.fixture(scope="module")
def run_at_once() -> Iterator[Callable[..., list[object]]]:
    """A function that calls another one in all processes at the same time."""
    with ProcessPoolExecutor(PROCESSES, get_context("forkserver")) as pool:
        yield lambda work, *arguments: list(pool.map(partial(work, *arguments), range(PROCESSES)))


def test_no_tree_is_lost_where_there_is_room_for_all(tmp_path: Path, run_at_once: Callable[..., list[object]]) -> None:
    assert run_at_once(write_and_open, tmp_path, 1 << 30) == [[]] * PROCESSES
    keys = [f"{process}-{index}" for process in range(PROCESSES) for index in range(TREES)]
    assert [key for key in keys if read_tree(tmp_path, key) is None] == []
    assert len(list(tmp_path.iterdir())) == len(keys)


@pytest.mark.parametrize("room", [0, 5, 64, 128])
def test_all_processes_together_keep_to_the_quota(
    tmp_path: Path, run_at_once: Callable[..., list[object]], room: int
) -> None:
    quota = room * SIZE
    assert run_at_once(write_and_open, tmp_path, quota) == [[]] * PROCESSES
    files = list(tmp_path.iterdir())
    assert sum(file.stat().st_size for file in files) <= quota + (PROCESSES - 1) * quota // 32
    assert len(files) >= room * 30 // 32 - PROCESSES, "no more was evicted than had to be"


def test_the_quarantine_holds_the_newest_of_all_processes(
    tmp_path: Path, run_at_once: Callable[..., list[object]], capfd: pytest.CaptureFixture[str]
) -> None:
    run_at_once(quarantine, tmp_path)
    assert 10 <= len(list(tmp_path.iterdir())) <= 10 + PROCESSES
    assert "was not put into quarantine" not in capfd.readouterr().err
    Quarantine(tmp_path, max_files=10).add("last", "v1", "it hung")
    assert len(list(tmp_path.iterdir())) == 10
    with pytest.raises(QuarantineError):
        Quarantine(tmp_path).check("last", "v1")
