"""The state folder is full or read-only: it is told, nothing is acknowledged falsely, and all goes on afterwards."""

import os
import resource
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.builders.scenes import data_url
from tests.faults.backend import IMAGE, PATIENCE_S, Backend, make_image, running

LARGE = 400_000  # bytes of an event that does not fit; half a megabyte would go through a file of the web server's


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """The state folder as a small disk of its own; skipped where none may be mounted."""
    folder = tmp_path / "state"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "none", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("no disk may be mounted here: a limit of file sizes stands in for it")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def check_trouble(backend: Backend, said: str, spoil: Callable[[], None], mend: Callable[[], None]) -> None:
    """Events are refused while the folder is of no use, predictions are not, and all is well afterwards."""
    assert backend.set_up().ok
    assert backend.submit(1).ok
    backend.learns(1)
    assert backend.predict(IMAGE)[0]
    spoil()
    begin = len(backend.log)
    assert backend.submit(2, padding=LARGE).status_code == 503
    backend.says("walkcut.sqlite3 cannot be used now", said, after=begin)
    assert backend.predict(IMAGE)[0], "an image that was seen"
    assert backend.predict(data_url(make_image(3)))[0], "and one that was not"
    assert backend.predict(IMAGE, line="3")[0]["result"]
    mend()
    assert backend.submit(3, padding=LARGE).ok
    backend.learns(3)
    assert backend.stored()[1] == {1, 3}
    assert "Traceback" not in backend.log


def test_a_full_disk(disk: Path, tmp_path: Path) -> None:
    filler = disk / "filler"

    def fill() -> None:
        with filler.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"x" * 4096)
            except OSError:
                return

    with running(tmp_path) as backend:
        check_trouble(backend, "check that there is room on its disk", fill, filler.unlink)
        assert "was not saved" in backend.log


def test_files_that_may_not_grow(tmp_path: Path) -> None:
    with running(tmp_path) as backend:
        _, hard = resource.prlimit(backend.pid, resource.RLIMIT_FSIZE)
        check_trouble(
            backend,
            "check that there is room on its disk",
            lambda: _limit(backend.pid, LARGE // 2, hard),
            lambda: _limit(backend.pid, hard, hard),
        )


def _limit(pid: int, size: int, hard: int) -> None:
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))


@pytest.fixture
def bound() -> Sequence[str]:
    """What runs a command as somebody whom permissions bind, which they do not root."""
    return ("setpriv", "--bounding-set", "-dac_override,-dac_read_search") if os.geteuid() == 0 else ()


def test_a_folder_whose_permissions_are_taken_away(tmp_path: Path, bound: Sequence[str]) -> None:
    with running(tmp_path, bound) as backend:
        assert backend.set_up().ok
        assert backend.submit(1).ok
        backend.learns(1)
        modes = {path: path.stat().st_mode for path in (backend.state, *backend.state.rglob("*"))}
        for path in modes:
            path.chmod(0o555 if path.is_dir() else 0o444)
        assert backend.predict(data_url(make_image(3)))[0]
        backend.says("the cut tree", "was not saved", "Permission denied", str(backend.state / "trees"))
        acknowledged = [number for number in range(2, 8) if backend.submit(number).ok]  # files that are open stay so
        for path, mode in modes.items():
            path.chmod(mode)
        assert backend.submit(9).ok
        backend.learns(1, *acknowledged, 9)
        assert "Traceback" not in backend.log


def test_a_read_only_folder_at_the_start_is_named_with_the_remedy(tmp_path: Path, bound: Sequence[str]) -> None:
    (tmp_path / "state").mkdir(mode=0o555)
    backend = Backend(tmp_path, {}, through=bound)
    assert backend.launch().wait(PATIENCE_S) != 0
    assert f"{backend.state} cannot be used to keep state" in backend.log
    assert "walkcut may write there, or set WALKCUT_STATE_DIR" in backend.log
    assert "Traceback" not in backend.log


def test_a_full_disk_at_the_start_is_named_with_the_remedy(disk: Path, tmp_path: Path) -> None:
    (disk / "filler").write_bytes(b"x" * (3 << 20))
    backend = Backend(tmp_path, {})
    assert backend.launch().wait(PATIENCE_S) != 0
    assert "cannot be used to keep state" in backend.log
    assert "check that there is room" in backend.log
    assert "Traceback" not in backend.log
