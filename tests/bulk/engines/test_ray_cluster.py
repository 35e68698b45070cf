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
    with shared_fs_marker(folder(tmp_path / "out"), folder(tmp_path / "trees")) as markers:
        verify_marker(markers)
        (tmp_path / "trees").rename(tmp_path / "away")
        for again in (False, True):  # a missing folder, and another one
            if again:
                folder(tmp_path / "trees")
            with pytest.raises(
                SettingsError, match=r"the machine .* does not see .*trees, or .*choose an --out and a W"
            ):
                verify_marker(markers)
        (tmp_path / "trees").rmdir()
        (tmp_path / "away").rename(tmp_path / "trees")
    assert list(tmp_path.glob("*/.*")) == []


def test_a_marker_of_an_earlier_run_is_refused(tmp_path: Path) -> None:
    with shared_fs_marker(tmp_path) as before, shared_fs_marker(tmp_path) as markers:
        verify_marker(markers)
        assert markers.keys() == before.keys()
        with pytest.raises(SettingsError):
            verify_marker(before)


def test_runs_that_share_trees_do_not_share_markers(tmp_path: Path) -> None:
    trees, first, second = (folder(tmp_path / name) for name in ("trees", "first", "second"))
    with shared_fs_marker(first, trees) as markers:
        with shared_fs_marker(second, trees):
            pass
        verify_marker(markers)


@pytest.mark.parametrize("initialized", [True, False])
def test_a_connection_that_existed_before_is_kept(initialized: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def init(**options: Any) -> None:
        calls.append("init")
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # Ray installs its own handler

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setattr(ray, "is_initialized", lambda: initialized)
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: calls.append("shutdown"))
    before = signal.getsignal(signal.SIGTERM)
    with connected():
        assert signal.getsignal(signal.SIGTERM) == before
    assert calls == ([] if initialized else ["init", "shutdown"])


def test_a_cluster_that_cannot_be_reached_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**options: Any) -> None:
        raise ConnectionError("no such host")

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(SettingsError, match=r"Ray cannot be started \(no such host\): set RAY_ADDRESS"):
        connected().__enter__()
