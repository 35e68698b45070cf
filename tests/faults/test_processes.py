"""Processes are killed: whatever was acknowledged is there, and answers come."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import requests

from benchmarks.processes import descendants
from tests.builders.processes import wait_for
from tests.builders.scenes import data_url, png, quarters
from tests.faults.backend import IMAGE, PATIENCE_S, Backend, kill_model, running, submitting


def test_a_backend_that_is_killed_at_work_has_all_that_it_acknowledged(folder: Path) -> None:
    with running(folder) as backend, ThreadPoolExecutor(1) as pool:
        with submitting(backend) as acknowledged:
            wait_for("submissions", lambda: len(acknowledged) > 3, PATIENCE_S)
            batch = pool.submit(backend.predict, *[data_url(png(quarters(900, 1200)))] * 2)
            wait_for("a prediction to be made", lambda: _is_predicting(backend), PATIENCE_S)
            orphans = descendants(backend.pid)
            backend.kill()
            assert batch.exception() is not None
            wait_for("its processes to end", lambda: not any(map(_runs, orphans)), PATIENCE_S)
            backend.start()
        backend.learns(*acknowledged)
        assert backend.predict(IMAGE)[0]


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_model_that_is_killed_at_work_answers_nevertheless(backend: Backend) -> None:
    begin = len(backend.log)
    large = [data_url(png(quarters(800, 1000 + number))) for number in range(2)]
    with ThreadPoolExecutor(1) as pool:
        batch = pool.submit(backend.predict, *large)
        wait_for("the model to be at work", lambda: _is_predicting(backend), PATIENCE_S)
        kill_model(backend)
        assert len(batch.result()) == 2
    backend.says("the model's process ended", "restarting it", after=begin)
    wait_for("both answers", lambda: all(backend.predict(*large)), PATIENCE_S)  # where there was no time for them
    assert backend.predict(IMAGE, line="3")[0]["result"]


def _is_predicting(backend: Backend) -> bool:
    """Whether it says so."""
    lines = requests.get(f"{backend.url}/metrics", timeout=PATIENCE_S).text.splitlines()
    return any(line.startswith("walkcut_predicting ") and float(line.split()[1]) for line in lines)
