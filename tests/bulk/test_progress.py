import io
import logging
import sys

import pytest
import torch
from tqdm import tqdm

from tests.builders.bulk import done
from walkcut.bulk import progress
from walkcut.bulk.checkpoint import ItemFailure
from walkcut.bulk.progress import gpu_use, progress_bar
from walkcut.errors import SettingsError

FAILURE = ItemFailure("b", "/b", "decode", "no")


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress_bar(lambda: 4, before=2) as watch:
        watch(done("a"))
        watch(FAILURE)
    last = capsys.readouterr().err.rpartition("\r")[2]
    assert "4/4" in last or "4image" in last  # before the total is known
    assert "failed=1" in last


def test_others_get_lines(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(progress, "_EVERY_S", 0)
    with caplog.at_level(logging.INFO), progress_bar() as watch:
        watch(done("a"))
        watch(FAILURE)
    assert [record.getMessage()[:17] for record in caplog.records] == ["1 done, 0 failed,", "1 done, 1 failed,"]


def test_a_total_that_cannot_be_had_is_left_out() -> None:
    def lost() -> int:
        raise SettingsError("there is no such folder")

    with tqdm(file=io.StringIO()) as bar:
        progress._count(bar, lost)
        assert bar.total is None
        progress._count(bar, lambda: 7)
        assert bar.total == 7


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU that this process works with, three quarters full."""
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (1 << 30, 4 << 30))


def test_without_a_gpu_nothing_is_said_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    assert gpu_use() == {}


@pytest.mark.usefixtures("gpu")
def test_the_use_of_a_gpu_is_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.cuda, "utilization", lambda: 98)
    monkeypatch.setattr(progress, "_EVERY_S", 0)
    with caplog.at_level(logging.INFO), progress_bar() as watch:
        watch(done("a"))
    assert caplog.records[0].getMessage().endswith(" images/s, gpu_memory 75%, gpu 98%")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress_bar() as watch:
        watch(done("a"))
    assert "gpu_memory=75%, gpu=98%" in capsys.readouterr().err


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("error", [ModuleNotFoundError("nvidia-ml-py"), RuntimeError("no driver"), Exception("MIG")])
def test_a_gpu_whose_use_cannot_be_read_costs_no_run(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def unknown() -> int:
        raise error

    monkeypatch.setattr(torch.cuda, "utilization", unknown)
    assert gpu_use() == {"gpu_memory": "75%"}
