"""The model's process killed, hung and lost, by a backbone with faults."""

import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.builders import faulty_backbone
from tests.builders.faulty_backbone import BUG, GOOD, HANGS, KILLED, KILLED_ONCE, LOGS, REFUSED, request
from tests.builders.processes import is_running, wait_for
from walkcut.errors import BusyError, ImageDecodeError, QuarantineError, SegmentationError, SettingsError
from walkcut.images import DecodeLimits
from walkcut.inference.model import ImageRequest, InProcessModel
from walkcut.inference.process import ModelFailureError, ModelProcess
from walkcut.inference.supervised_model import SupervisedModel
from walkcut.storage.quarantine import Quarantine
from walkcut.telemetry.metrics import Metrics

LEFT_BEHIND = """
import sys, threading
from pathlib import Path
from tests.inference import test_supervised_model as tests
if __name__ == "__main__":
    worker = tests.worker(Path(sys.argv[1]), seconds=600)
    print(worker.pid, flush=True)
    worker.segment(tests.request(tests.HANGS))
"""


@pytest.fixture(autouse=True, scope="module")
def preloaded() -> None:
    """Have processes import once what the tests need."""
    multiprocessing.set_forkserver_preload(["tests.builders.faulty_backbone", "walkcut.inference.supervised_model"])


def worker(folder: Path, metrics: Metrics | None = None, *, seconds: float = 60.0) -> SupervisedModel:
    load = partial(faulty_backbone.load, folder)
    quarantine = Quarantine(folder / "quarantine")
    return SupervisedModel(
        partial(ModelProcess, load, DecodeLimits(), timeout=seconds), quarantine, metrics or Metrics()
    )


@contextmanager
def working(folder: Path, metrics: Metrics | None = None, *, seconds: float = 60.0) -> Iterator[SupervisedModel]:
    with closing(worker(folder, metrics, seconds=seconds)) as found:
        yield found


def crashes(metrics: Metrics, kind: str) -> float:
    return metrics.registry.get_sample_value("walkcut_model_crashes_total", {"reason": kind}) or 0.0


def test_trees_equal_those_of_the_model_in_process_and_stages_are_measured(tmp_path: Path) -> None:
    here, metrics = InProcessModel(faulty_backbone.load(tmp_path), DecodeLimits()), Metrics()
    part = ImageRequest("part", request(64, 64).data, (slice(0, 40), slice(10, 50)))
    with working(tmp_path, metrics) as there:
        assert (there.version, there.preset_name, there.unavailable_reason) == (here.version, here.preset_name, "")
        for image_request in (request(GOOD), part):
            assert there.segment(image_request) == here.segment(image_request)
    for stage in ("decode", "features", "cut"):
        assert metrics.registry.get_sample_value("walkcut_stage_seconds_count", {"stage": stage})


def test_an_image_whose_process_dies_is_tried_once_more(tmp_path: Path) -> None:
    metrics = Metrics()
    with working(tmp_path, metrics) as there:
        before = there.pid
        assert there.segment(request(KILLED_ONCE))
        assert there.pid != before
    assert crashes(metrics, "ended") == 1


def test_an_image_that_kills_twice_is_quarantined_and_others_go_on(tmp_path: Path) -> None:
    metrics = Metrics()
    with working(tmp_path, metrics) as there:
        with pytest.raises(QuarantineError, match=r"exit code -9: it was killed.*scale it down.*delete"):
            there.segment(request(KILLED))
        assert there.segment(request(GOOD))
        before = there.pid
        with pytest.raises(QuarantineError):
            there.segment(request(KILLED))
        assert (there.pid, crashes(metrics, "ended")) == (before, 2)
    with working(tmp_path, metrics) as after_a_restart:
        with pytest.raises(QuarantineError):
            after_a_restart.segment(request(KILLED))
        assert crashes(metrics, "ended") == 2
        (entry,) = (tmp_path / "quarantine").iterdir()
        entry.unlink()
        with pytest.raises(QuarantineError):
            after_a_restart.segment(request(KILLED))
        assert crashes(metrics, "ended") == 4


def test_a_hanging_model_is_killed(tmp_path: Path) -> None:
    metrics = Metrics()
    with working(tmp_path, metrics, seconds=2) as there:
        with pytest.raises(QuarantineError, match=r"took longer than 2 s \(WALKCUT_SEGMENT_TIMEOUT\)"):
            there.segment(request(HANGS))
        assert there.segment(request(GOOD))
    assert crashes(metrics, "hung") == 2


def test_an_unusable_image_does_not_end_the_process(tmp_path: Path) -> None:
    metrics = Metrics()
    with working(tmp_path, metrics) as there:
        before = there.pid
        with pytest.raises(ImageDecodeError, match="not in a supported image format"):
            there.segment(ImageRequest("broken", b"no image"))
        with pytest.raises(SegmentationError, match="nothing to see in it"):
            there.segment(request(REFUSED))
        with pytest.raises(ModelFailureError, match="ZeroDivisionError: by the model"):
            there.segment(request(BUG))
        assert there.segment(request(GOOD))
        assert there.pid == before
    assert crashes(metrics, "ended") == 0


def test_log_records_reach_the_server(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with working(tmp_path) as there:
        there.segment(request(LOGS))
        with pytest.raises(ModelFailureError):
            there.segment(request(BUG))
    assert ("faulty", logging.WARNING, "what a strange image") in caplog.record_tuples
    assert "Traceback" in caplog.text


def test_a_model_that_cannot_be_loaded_is_an_error_at_once(tmp_path: Path) -> None:
    (tmp_path / "gone").touch()
    with pytest.raises(SettingsError, match=r"^the weights are gone$"):
        worker(tmp_path)
    quarantine, die = Quarantine(tmp_path), partial(faulty_backbone.die, tmp_path)
    with pytest.raises(SettingsError, match=r"ended \(exit code -9.*before the model was loaded"):
        SupervisedModel(partial(ModelProcess, die, DecodeLimits(), timeout=1), quarantine, Metrics())


@pytest.mark.parametrize(
    ("file", "message"), [("gone", "the weights are gone"), ("name", "have changed since walkcut started")]
)
def test_a_failed_reload_is_not_tried_all_the_time(tmp_path: Path, file: str, message: str) -> None:
    with working(tmp_path) as there:
        (tmp_path / file).write_text("another")
        with pytest.raises(BusyError, match=message):
            there.segment(request(KILLED_ONCE))
        process = there.pid
        assert message in there.unavailable_reason
        with pytest.raises(BusyError, match=message):
            there.segment(request(GOOD))
        assert there.pid == process


@pytest.mark.parametrize("error", [EOFError("unexpected EOF"), OSError("no memory")])
def test_a_process_that_cannot_be_started_is_started_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr("walkcut.inference.supervised_model._RESTART_PAUSE_S", 0.0)
    with working(tmp_path) as there:
        start = there._start

        def fail() -> ModelProcess:
            there._start = start
            raise error

        there._start = fail
        with pytest.raises(BusyError, match=rf"cannot be reloaded \({error}\): try again"):
            there.segment(request(KILLED_ONCE))
        assert there.segment(request(GOOD))


def test_a_process_that_ended_while_idle_is_replaced_without_blame(tmp_path: Path) -> None:
    metrics = Metrics()
    with working(tmp_path, metrics) as there:
        before = there.pid
        os.kill(before, signal.SIGKILL)
        wait_for("the end", lambda: not there._process.is_alive, 30)
        assert there.segment(request(GOOD))
        assert there.pid != before
    assert crashes(metrics, "ended") == 0


def test_signals_to_the_process_group_do_not_end_it(tmp_path: Path) -> None:
    with working(tmp_path) as there:
        before = there.pid
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(before, number)
        assert there.segment(request(GOOD))
        assert there.pid == before


def test_closing_ends_a_working_process(tmp_path: Path) -> None:
    there = worker(tmp_path)
    answers: list[Exception] = []

    def ask() -> None:
        try:
            there.segment(request(HANGS))
        except BusyError as error:
            answers.append(error)

    caller = threading.Thread(target=ask, daemon=True)
    caller.start()
    wait_for("work", (tmp_path / "hangs").exists, 30)
    there.close()
    caller.join(30)
    assert [str(error) for error in answers] == ["walkcut is shutting down: try again"]
    assert not is_running(there.pid)
    there.close()


def test_the_process_ends_with_a_killed_server(tmp_path: Path) -> None:
    script = tmp_path / "server.py"
    script.write_text(LEFT_BEHIND)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, script, tmp_path], stdout=subprocess.PIPE, env=environment) as server:
        assert server.stdout is not None
        process = int(server.stdout.readline())
        wait_for("work", (tmp_path / "hangs").exists, 30)
        assert is_running(process)
        server.kill()
    wait_for("the end", lambda: not is_running(process), 30)
