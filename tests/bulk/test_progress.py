import io
import logging
import sys

import pytest
from tqdm import tqdm

from tests.bulk.stand_ins import done
from walkcut.bulk import progress
from walkcut.bulk.ledger import Failure
from walkcut.bulk.progress import shown
from walkcut.errors import SettingsError

FAILURE = Failure("b", "/b", "decode", "no")


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with shown(lambda: 4, before=2) as watch:
        watch(done("a"))
        watch(FAILURE)
    last = capsys.readouterr().err.rpartition("\r")[2]
    assert "4/4" in last or "4image" in last  # before the total is known
    assert "failed=1" in last


def test_others_get_lines(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(progress, "_EVERY_S", 0)
    with caplog.at_level(logging.INFO), shown() as watch:
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
