import os
import shutil
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event

import pytest
from click.testing import CliRunner
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.builders.plain_trees import plain_tree
from walkcut.cli import main
from walkcut.errors import SettingsError
from walkcut.hierarchy.cut_tree import CutTree
from walkcut.storage import TreeCache, read_tree, write_tree
from walkcut.storage.files import FileInfo, list_files

SIZE = len(plain_tree(3).to_bytes())
ROOM_FOR_1, ROOM_FOR_2, ROOM_FOR_3 = (count * SIZE + SIZE // 2 for count in (1, 2, 3))  # with a 32nd left free


def put(cache: TreeCache, key: str, tree: CutTree) -> None:
    cache.put(key, tree, tree.to_bytes())


def keys(folder: Path) -> list[str]:
    return sorted(path.name.removesuffix(".tree.npz") for path in folder.iterdir())


def test_a_tree_comes_back_unchanged(tmp_path: Path) -> None:
    cache = TreeCache(tmp_path / "trees", 1 << 20)
    assert cache.get("a") is None
    put(cache, "a", plain_tree(3))
    for tree in (cache.get("a"), TreeCache(tmp_path / "trees", 1 << 20).get("a")):
        assert tree is not None
        assert tree.size == (2, 3)


def test_the_latest_trees_are_not_read_again(tmp_path: Path) -> None:
    cache = TreeCache(tmp_path, 1 << 20, max_memory=2 * plain_tree(3).nbytes)
    trees = {key: plain_tree(3) for key in "abc"}
    for key in "ab":
        put(cache, key, trees[key])
    assert cache.get("a") is trees["a"]
    put(cache, "c", trees["c"])
    for key in "abc":
        (tmp_path / f"{key}.tree.npz").unlink()
    assert cache.get("a") is trees["a"]
    assert cache.get("c") is trees["c"]
    assert cache.get("b") is None


def test_memory_is_bounded_but_holds_at_least_the_latest_tree(tmp_path: Path) -> None:
    widths = {"a": 3, "b": 4, "c": 2, "d": 100, "e": 2}
    cache, steps = TreeCache(tmp_path, 0, max_memory=plain_tree(7).nbytes), dict[str, str]()
    for key, width in widths.items():
        put(cache, key, plain_tree(width))
        steps[key] = "".join(other for other in widths if other in cache._trees)
    assert steps == {"a": "a", "b": "ab", "c": "bc", "d": "d", "e": "e"}
    put(cache, "e", plain_tree(6))
    put(cache, "f", plain_tree(1))
    assert (cache.get_from_memory("e") is None, cache.get_from_memory("f") is None) == (False, False)
    put(cache, "g", plain_tree(1))
    assert [cache.get_from_memory(key) is None for key in "efg"] == [True, False, False]


def test_ordinary_trees_fit_into_memory_by_default(tmp_path: Path) -> None:
    cache, tree = TreeCache(tmp_path, 0), plain_tree(480 * 640 // 2)
    for number in range(60):
        cache.touch(str(number), tree)
    assert cache.get_from_memory("0") is tree


def test_a_tree_in_a_file_alone_is_not_in_memory(tmp_path: Path) -> None:
    put(TreeCache(tmp_path, 1 << 20), "a", plain_tree(3))
    cache = TreeCache(tmp_path, 1 << 20)
    assert cache.get_from_memory("a") is None
    assert cache.get("a") is cache.get_from_memory("a") is not None


def test_a_tree_that_was_read_stays_in_memory(tmp_path: Path) -> None:
    put(TreeCache(tmp_path, 1 << 20), "a", plain_tree(3))
    cache = TreeCache(tmp_path, 1 << 20)
    tree = cache.get("a")
    assert tree is not None
    assert cache.get("a") is tree


def test_a_damaged_tree_is_deleted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = TreeCache(tmp_path, 1 << 20)
    (tmp_path / "a.tree.npz").write_bytes(b"half a fi")
    assert cache.get("a") is None
    assert keys(tmp_path) == []
    assert "deleted" in caplog.text


STEPS = st.tuples(st.sampled_from(["put", "get", "start"]), st.sampled_from("abcd"))


USED = [("put", "a"), ("put", "b"), ("get", "a")]


@settings(max_examples=50)
@given(steps=st.lists(STEPS, max_size=12), quota=st.sampled_from([0, ROOM_FOR_1, ROOM_FOR_2]))
@example(steps=[*USED, ("put", "c")], quota=ROOM_FOR_2)
@example(steps=[*USED, ("start", ""), ("put", "c")], quota=ROOM_FOR_2)
def test_the_least_recently_used_files_go_first_also_after_a_restart(steps: list[tuple[str, str]], quota: int) -> None:
    with TemporaryDirectory() as name:
        cache = TreeCache(Path(name), quota, max_memory=1)
        used: OrderedDict[str, None] = OrderedDict()
        for action, key in steps:
            if action == "start":
                cache = TreeCache(Path(name), quota, max_memory=1)
            elif action == "get":
                cache.get(key)
                used.move_to_end(key) if key in used else None
            else:
                put(cache, key, plain_tree(3))
                used[key] = None
                used.move_to_end(key)
                while len(used) * SIZE > quota:
                    used.popitem(last=False)
            assert keys(Path(name)) == sorted(used)


def test_the_folder_is_not_listed_for_each_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, listings = TreeCache(tmp_path, 320 * SIZE), list[Path]()

    def count_listing(folder: Path, suffix: str) -> list[FileInfo]:
        listings.append(folder)
        return list_files(folder, suffix)

    monkeypatch.setattr("walkcut.storage.tree_cache.list_files", count_listing)
    for number in range(330):
        put(cache, f"{number:03}", plain_tree(3))
    assert len(listings) <= 33
    monkeypatch.undo()
    kept = keys(tmp_path)
    assert 310 <= len(kept) <= 320
    assert kept[-1] == "329"
    assert len(kept) == 330 - int(kept[0])


def test_registered_files_of_other_processes_count(tmp_path: Path) -> None:
    cache = TreeCache(tmp_path, ROOM_FOR_2)
    for key in "abc":
        size = write_tree(tmp_path, key, plain_tree(3).to_bytes())
        assert size == SIZE
        cache.register(size)
    assert keys(tmp_path) == ["b", "c"]
    assert cache.get("c") is not None


def test_files_that_other_processes_wrote_or_used_count(tmp_path: Path) -> None:
    cache, neighbour = (TreeCache(tmp_path, ROOM_FOR_2) for _ in range(2))
    put(cache, "a", plain_tree(3))
    put(neighbour, "b", plain_tree(3))
    assert neighbour.get("a") is not None
    put(cache, "c", plain_tree(3))
    assert keys(tmp_path) == ["a", "c"]
    assert TreeCache(tmp_path, ROOM_FOR_2).get("b") is None


def test_a_file_that_cannot_be_read_is_not_in_the_cache(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.tree.npz").mkdir()
    assert TreeCache(tmp_path, 1 << 20).get("a") is None
    assert "the cut tree a cannot be read" in caplog.text


def test_a_quota_that_cannot_be_kept_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = TreeCache(tmp_path / "trees", 0)
    os.rmdir(tmp_path / "trees")
    cache.register(1)
    assert "may exceed their quota" in caplog.text


@pytest.mark.parametrize(("step", "result"), [("write_tree", 0), ("list_files", [])])
def test_a_tree_in_memory_does_not_wait_for_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, result: object
) -> None:
    cache, is_waiting, is_written = TreeCache(tmp_path, 0), Event(), Event()
    put(cache, "a", plain_tree(3))

    def wait(*_: object) -> object:
        is_waiting.set()
        assert is_written.wait(60)
        return result

    monkeypatch.setattr(f"walkcut.storage.tree_cache.{step}", wait)
    with ThreadPoolExecutor(2) as pool:
        pool.submit(put, cache, "b", plain_tree(3))
        assert is_waiting.wait(60)
        try:
            assert pool.submit(cache.get, "a").result(10) is not None
        finally:
            is_written.set()


def test_many_threads_keep_to_the_quota(tmp_path: Path) -> None:
    cache = TreeCache(tmp_path, ROOM_FOR_3, max_memory=2 * plain_tree(3).nbytes)

    def touch(number: int) -> None:
        key = "abcdef"[number * 7 % 6]
        tree = cache.get(key)
        assert tree is None or tree.size == (2, 3)
        put(cache, key, plain_tree(3))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(touch, range(200)))
    assert len(keys(tmp_path)) == 3
    put(cache, "last", plain_tree(3))
    assert len(keys(tmp_path)) == 3


@pytest.mark.parametrize("name", ["file", "file/below", "/proc/self/walkcut"])
def test_a_folder_that_cannot_be_made_is_named_with_the_remedy(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    folder = tmp_path / name
    with pytest.raises(SettingsError, match=rf"^{folder} cannot be used to keep state \([A-Z].*set WALKCUT_STATE_DIR"):
        TreeCache(folder, 1 << 20)


@pytest.mark.parametrize("command", [["serve"], ["prelabel", "{images}", "--out", "{out}"]])
def test_commands_report_it_in_one_line(tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "trees").touch()
    (tmp_path / "images").mkdir()
    named = {name: tmp_path / name for name in ("images", "out")}
    arguments = [argument.format(**named) for argument in command]
    result = CliRunner().invoke(main, arguments, env={"WALKCUT_STATE_DIR": str(tmp_path / "state")})
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"Error: {tmp_path / 'state' / 'trees'} cannot be used to keep state (File exists)")


def test_a_tree_that_cannot_be_saved_is_no_failure(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = TreeCache(tmp_path / "trees", 1 << 20)
    os.rmdir(tmp_path / "trees")
    (tmp_path / "trees").touch()
    put(cache, "a", plain_tree(3))
    assert "was not saved" in caplog.text
    assert cache.get("a") is not None, "it is in memory"


def test_a_folder_that_was_removed_is_made_again(tmp_path: Path) -> None:
    cache = TreeCache(tmp_path / "state" / "trees", 1 << 20)
    shutil.rmtree(tmp_path / "state")
    put(cache, "a", plain_tree(3))
    assert read_tree(tmp_path / "state" / "trees", "a") is not None
