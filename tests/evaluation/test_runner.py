"""Runs: each image is scored once, even if an earlier run was interrupted."""

from pathlib import Path

import pytest

from tests.builders.evaluation import FixedSystem, quarter_dataset
from walkcut.errors import SettingsError
from walkcut.evaluation.protocols import PROTOCOLS
from walkcut.evaluation.runner import EvaluationRun
from walkcut.evaluation.summary import summarise


def test_an_interrupted_run_is_resumed(tmp_path: Path) -> None:
    calls: list[int] = []

    def interrupt() -> None:
        if len(calls) == 2:
            raise KeyboardInterrupt

    interrupted = FixedSystem(calls=calls, hook=interrupt)
    images, record = quarter_dataset(tmp_path), tmp_path / "deep" / "record.jsonl"
    with pytest.raises(KeyboardInterrupt):
        list(EvaluationRun(interrupted, images, PROTOCOLS["native"]).results(record))
    with record.open("a") as file:
        file.write('{"name": "2", "seco')
    later = FixedSystem()
    results = list(EvaluationRun(later, images, PROTOCOLS["native"]).results(record))
    assert [result.name for result in results] == ["0", "1", "2"]
    assert (len(interrupted.calls), len(later.calls)) == (2, 1)
    assert [result.scores for result in results] == [results[0].scores] * 3
    again = list(EvaluationRun(later, images, PROTOCOLS["native"]).results(record))
    assert again == results
    assert len(later.calls) == 1


def test_the_record_of_another_run_is_refused(tmp_path: Path) -> None:
    images, record = quarter_dataset(tmp_path), tmp_path / "record.jsonl"
    list(EvaluationRun(FixedSystem(), images, PROTOCOLS["native"]).results(record))
    before = record.read_text()
    with pytest.raises(SettingsError, match=r"record.jsonl holds the results of another run: delete it, or choose"):
        list(EvaluationRun(FixedSystem(version="2"), images, PROTOCOLS["native"]).results(record))
    assert record.read_text() == before


def test_a_file_that_is_no_record_is_refused(tmp_path: Path) -> None:
    record = tmp_path / "notes.txt"
    record.write_text("my notes\n")
    with pytest.raises(SettingsError, match=r"notes.txt holds the results of another run"):
        list(EvaluationRun(FixedSystem(), quarter_dataset(tmp_path), PROTOCOLS["native"]).results(record))
    assert record.read_text() == "my notes\n"


def test_counts_and_boundaries_come_back_from_a_record(tmp_path: Path) -> None:
    images, record = quarter_dataset(tmp_path, classes=True), tmp_path / "record.jsonl"
    run = EvaluationRun(FixedSystem(), images, PROTOCOLS["native"], frozenset({"1"}))
    assert summarise(run, list(run.results(record))) == summarise(run, list(run.results(record)))


def test_systems_get_the_number_of_true_segments(tmp_path: Path) -> None:
    system = FixedSystem()
    list(EvaluationRun(system, quarter_dataset(tmp_path), PROTOCOLS["native"]).results())
    assert system.calls == [4] * 3
