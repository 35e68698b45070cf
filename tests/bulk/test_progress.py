import io
import logging
import sys

import pytest
import torch
from tqdm import tqdm

from tests.builders.bulk import FAILURE, make_result
from walkcut.bulk import progress
from walkcut.bulk.progress import RunStats, gpu_use, progress_bar
from walkcut.errors import SettingsError


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    stats = RunStats()
    with progress_bar(stats, lambda: 4, already_done=2) as update:
        for outcome in (make_result("a"), FAILURE):
            stats(outcome)
            update(outcome)
    last = capsys.readouterr().err.rpartition("\r")[2]
    assert "4/4" in last or "4image" in last  # before the total is known
    assert "failed=1" in last


def test_without_a_terminal_progress_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(progress, "_LOG_INTERVAL_S", 0)
    stats = RunStats()
    with caplog.at_level(logging.INFO), progress_bar(stats) as update:
        for outcome in (make_result("a"), FAILURE):
            stats(outcome)
            update(outcome)
    assert [record.getMessage()[:17] for record in caplog.records] == ["1 done, 0 failed,", "1 done, 1 failed,"]


def test_images_that_cannot_be_counted_leave_the_bar_without_a_total() -> None:
    def failing() -> int:
        raise SettingsError("there is no such folder")

    with tqdm(file=io.StringIO()) as bar:
        progress._set_total(bar, failing)
        assert bar.total is None
        progress._set_total(bar, lambda: 7)
        assert bar.total == 7


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU used by this process, with three quarters of its memory in use."""
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (1 << 30, 4 << 30))


def test_without_a_gpu_its_use_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    assert gpu_use() == {}


@pytest.mark.usefixtures("gpu")
def test_the_use_of_a_gpu_is_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.cuda, "utilization", lambda: 98)
    monkeypatch.setattr(progress, "_LOG_INTERVAL_S", 0)
    with caplog.at_level(logging.INFO), progress_bar(RunStats()) as update:
        update(make_result("a"))
    assert caplog.records[0].getMessage().endswith(" images/s, gpu_memory 75%, gpu 98%")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress_bar(RunStats()) as update:
        update(make_result("a"))
    assert "gpu_memory=75%, gpu=98%" in capsys.readouterr().err


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("error", [ModuleNotFoundError("nvidia-ml-py"), RuntimeError("no driver"), Exception("MIG")])
def test_an_unreadable_utilisation_is_left_out(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def failing() -> int:
        raise error

    monkeypatch.setattr(torch.cuda, "utilization", failing)
    assert gpu_use() == {"gpu_memory": "75%"}
