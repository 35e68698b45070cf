from pathlib import Path

import pytest

from walkcut.storage import atomic_file


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
