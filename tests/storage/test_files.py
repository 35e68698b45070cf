import os
import time
from pathlib import Path

import pytest

from walkcut.storage import atomic_file
from walkcut.storage.files import list_files


def test_a_file_appears_when_it_is_complete(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "x") as write:
        assert write(b"whole") == 5
        assert not (tmp_path / "x").exists()
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"whole"]


def test_a_file_that_fails_half_way_never_appears(tmp_path: Path) -> None:
    def fail_half_way() -> None:
        with atomic_file(tmp_path / "x") as write:
            write(b"half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail_half_way()
    assert list(tmp_path.iterdir()) == []


def test_files_are_listed_by_age_without_those_of_another_suffix(tmp_path: Path) -> None:
    for age, name in enumerate(("new.tree", "old.tree", "oldest.other")):
        (tmp_path / name).write_bytes(b"x" * age)
        os.utime(tmp_path / name, ns=(9 - age, 9 - age))
    assert list_files(tmp_path, ".tree") == [(8, 1, "old.tree"), (9, 0, "new.tree")]


def test_half_written_files_are_deleted_when_their_process_cannot_be_writing_them_any_more(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "x") as write:
        write(b"whole")
        list_files(tmp_path, ".tree")
    assert (tmp_path / "x").read_bytes() == b"whole"
    (tmp_path / ".killed.part").write_bytes(b"half")
    os.utime(tmp_path / ".killed.part", (0, time.time() - 2 * 3600))
    list_files(tmp_path, ".tree")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
