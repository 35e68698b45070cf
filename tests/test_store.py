import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from walkcut.errors import SettingsError
from walkcut.segmentation.granularity import Level
from walkcut.segmentation.hierarchy import Hierarchy
from walkcut.segmentation.tree import CutTree
from walkcut.store import Event, ProjectStore, TreeCache, atomic_file

LEVELS = {Level.COARSE: 1, Level.MEDIUM: 1, Level.FINE: 1}


def plain_tree(width: int) -> CutTree:
    """One leaf, told apart by its width."""
    nothing = Hierarchy(np.zeros((0, 2), np.int64), np.zeros(0), np.zeros(0, bool))
    return CutTree(np.zeros((2, width), np.uint16), nothing, LEVELS)


def test_events_come_back_in_order_and_outlive_the_process(tmp_path: Path) -> None:
    events = [Event(action, "3", {"n": number, "text": "é"}) for number, action in enumerate(["A", "B"])]
    first = ProjectStore(tmp_path)
    for happened in [*events, Event("C", "4", {})]:
        first.record(happened)
    first.close()
    second = ProjectStore(tmp_path)
    assert second.events("3") == events
    second.close()


def test_extra_parameters_are_those_of_the_last_set_up(tmp_path: Path) -> None:
    store = ProjectStore(tmp_path)
    assert store.extra_params("3") == {}
    for params in ({"a": 1}, {"a": 1}, {"b": 2}, {}):
        store.remember_extra_params("3", params)
        assert store.extra_params("3") == params
    store.close()


def test_many_threads_record_at_once(tmp_path: Path) -> None:
    store = ProjectStore(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: store.record(Event("A", "1", {"n": number})), range(40)))
    assert sorted(happened.body["n"] for happened in store.events("1")) == list(range(40))
    store.close()


@pytest.mark.parametrize("content", [b"a file", None])
def test_a_folder_that_cannot_be_used_is_named_with_the_remedy(tmp_path: Path, content: bytes | None) -> None:
    if content:
        (tmp_path / "state").write_bytes(content)
    else:
        (tmp_path / "state" / "walkcut.sqlite3").mkdir(parents=True)
    with pytest.raises(SettingsError, match=r"state cannot be used to keep state .*: set WALKCUT_STATE_DIR"):
        ProjectStore(tmp_path / "state")


def test_a_tree_comes_back_as_it_was(tmp_path: Path) -> None:
    cache = TreeCache(tmp_path / "trees", 1 << 20)
    assert cache.get("a") is None
    cache.put("a", plain_tree(3))
    found = cache.get("a")
    assert found is not None
    assert found.size == (2, 3)


def test_a_damaged_tree_is_dropped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = TreeCache(tmp_path, 1 << 20)
    (tmp_path / "a.tree.npz").write_bytes(b"half a fi")
    assert cache.get("a") is None
    assert not (tmp_path / "a.tree.npz").exists()
    assert "dropped" in caplog.text


def test_the_least_recently_used_trees_go_first(tmp_path: Path) -> None:
    size = len(plain_tree(3).to_bytes())
    cache = TreeCache(tmp_path, 2 * size + size // 2)
    for age, key in enumerate("ab"):
        cache.put(key, plain_tree(3))
        os.utime(tmp_path / f"{key}.tree.npz", (age, age))
    cache.get("a")
    cache.put("c", plain_tree(3))
    assert sorted(path.name[0] for path in tmp_path.iterdir()) == ["a", "c"]


def test_a_tree_that_cannot_be_kept_is_no_failure(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = TreeCache(tmp_path / "trees", 1 << 20)
    (tmp_path / "trees").rmdir()
    cache.put("a", plain_tree(3))
    assert "was not kept" in caplog.text


def test_a_file_that_fails_half_way_never_appears(tmp_path: Path) -> None:
    def fail_half_way() -> None:
        with atomic_file(tmp_path / "x") as write:
            write(b"half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail_half_way()
    assert list(tmp_path.iterdir()) == []
