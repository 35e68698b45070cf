import signal
from pathlib import Path
from typing import Any

import pytest
import ray

from walkcut.bulk.engines.ray_cluster import connected, shared_fs_marker, verify_marker
from walkcut.errors import SettingsError


def folder(path: Path) -> Path:
    path.mkdir()
    return path


def test_a_machine_that_sees_another_folder_is_named(tmp_path: Path) -> None:
    with shared_fs_marker(folder(tmp_path / "out"), folder(tmp_path / "trees")) as marks:
        verify_marker(marks)
        (tmp_path / "trees").rename(tmp_path / "away")
        for again in (False, True):  # no such folder, and another one
            if again:
                folder(tmp_path / "trees")
            with pytest.raises(
                SettingsError, match=r"the machine .* does not see .*trees, or .*choose an --out and a W"
            ):
                verify_marker(marks)
        (tmp_path / "trees").rmdir()
        (tmp_path / "away").rename(tmp_path / "trees")
    assert list(tmp_path.glob("*/.*")) == []


def test_a_mark_of_another_time_does_not_count(tmp_path: Path) -> None:
    with shared_fs_marker(tmp_path) as before, shared_fs_marker(tmp_path) as marks:
        verify_marker(marks)
        assert marks.keys() == before.keys()
        with pytest.raises(SettingsError):
            verify_marker(before)


def test_runs_that_share_trees_do_not_share_marks(tmp_path: Path) -> None:
    trees, one, other = (folder(tmp_path / name) for name in ("trees", "one", "other"))
    with shared_fs_marker(one, trees) as marks:
        with shared_fs_marker(other, trees):
            pass
        verify_marker(marks)


@pytest.mark.parametrize("there", [True, False])
def test_ray_is_left_as_it_was_found(there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def init(**options: Any) -> None:
        calls.append("init")
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as Ray has a handler of its own

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setattr(ray, "is_initialized", lambda: there)
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: calls.append("shutdown"))
    before = signal.getsignal(signal.SIGTERM)
    with connected():
        assert signal.getsignal(signal.SIGTERM) == before
    assert calls == ([] if there else ["init", "shutdown"])


def test_a_cluster_that_cannot_be_had_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**options: Any) -> None:
        raise ConnectionError("nobody is there")

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(SettingsError, match=r"Ray cannot be had \(nobody is there\): set RAY_ADDRESS"):
        connected().__enter__()
