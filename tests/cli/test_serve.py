"""`walkcut serve` as a process: told to end, killed, and its model killed."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from waitress.channel import HTTPChannel

from tests.builders.backend import predict_body
from tests.builders.processes import free_port, is_up, wait_for
from tests.builders.scenes import data_url, png, quarters
from tests.inference.test_tree_service import Gated
from tests.inference.test_worker import is_there
from walkcut.cli.serve import graceful_shutdown
from walkcut.inference.tree_service import TreeService
from walkcut.storage import TreeCache


@dataclass(frozen=True)
class Server:
    """A server that runs, and where its log goes."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path

    @property
    def model(self) -> int:
        """The number of the last process with the model."""
        return int(re.findall(r"the model is loaded, in process (\d+)", self.log.read_text())[-1])

    def predict(self, body: dict[str, Any]) -> list[Any]:
        answer = requests.post(f"{self.url}/predict", json=body, timeout=60)
        assert answer.ok, answer.text
        return list(answer.json()["results"])

    def metric(self, name: str) -> float:
        """The sum of a metric's samples."""
        lines = requests.get(f"{self.url}/metrics", timeout=10).text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if re.match(rf"{name}[ {{]", line))


@contextmanager
def serving(folder: Path) -> Iterator[Server]:
    port = free_port()
    environment = {**os.environ, "WALKCUT_STATE_DIR": str(folder / "state"), "WALKCUT_LOG_FORMAT": "json"}
    command = [sys.executable, "-m", "walkcut", "serve", "--port", str(port)]
    log = folder / "log"
    with log.open("wb") as output, subprocess.Popen(command, env=environment, stderr=output) as process:
        try:
            wait_for("the server", lambda: is_up(f"http://127.0.0.1:{port}"), 60)
            yield Server(process, f"http://127.0.0.1:{port}", log)
        finally:
            process.kill()


def hard_image(number: int) -> str:
    """An image that takes the model a second or more."""
    noise = np.random.default_rng(number).integers(0, 255, (480, 640, 3), np.uint8)
    return data_url(png(noise))


def test_told_to_end_it_ends_what_was_begun_and_hands_the_rest_back(tmp_path: Path) -> None:
    images = [data_url(png(quarters(100 + number, 160))) for number in range(100)]
    with serving(tmp_path) as server, ThreadPoolExecutor() as callers:
        assert requests.get(f"{server.url}/ready", timeout=10).json() == {"status": "READY"}
        asked: list[Future[list[Any]]] = [callers.submit(server.predict, predict_body(*images))]
        wait_for("the model at work", lambda: server.metric("walkcut_stage_seconds_count") >= 2, 30)
        server.process.send_signal(signal.SIGTERM)
        results = asked[0].result()
        assert (len(results[0]), len(results[-1])) == (4, 0)
        assert server.process.wait(30) == 0
        wait_for("the model's end", lambda: not is_there(server.model), 30)
    assert "Traceback" not in server.log.read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_idle_it_ends_at_once_and_in_good_order(tmp_path: Path, number: signal.Signals) -> None:
    with serving(tmp_path) as server:
        server.process.send_signal(number)
        assert server.process.wait(30) == 0
        wait_for("the model's end", lambda: not is_there(server.model), 30)
    assert not [*(tmp_path / "state").glob("*-wal")]  # the database is closed
    assert "Traceback" not in server.log.read_text()


def test_killed_it_leaves_no_process_behind(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        assert is_there(server.model)
        server.process.kill()
        wait_for("the model's end", lambda: not is_there(server.model), 30)


def test_a_model_that_is_killed_is_replaced_and_the_answer_comes(tmp_path: Path) -> None:
    with serving(tmp_path) as server, ThreadPoolExecutor() as callers:
        first = server.model
        asked = callers.submit(server.predict, predict_body(hard_image(1)))
        wait_for("the model at work", lambda: server.metric("walkcut_stage_seconds_count") >= 2, 30)
        os.kill(first, signal.SIGKILL)
        assert [len(predictions) for predictions in asked.result()] == [4]
        assert server.model != first
        assert server.metric("walkcut_model_crashes_total") == 1
        assert server.metric("walkcut_quarantined") == 0
        assert server.metric("walkcut_model_process_resident_memory_bytes") > 0
        assert server.metric("process_resident_memory_bytes") > 0
        assert server.metric("walkcut_build_info") == 1


@dataclass
class Unanswered:
    """Requests that are there, and how often somebody looked."""

    looks: int = 0

    def __bool__(self) -> bool:
        self.looks += 1
        return True


@pytest.fixture
def caller() -> HTTPChannel:
    """A caller who waits for an answer."""
    channel = HTTPChannel.__new__(HTTPChannel)
    channel.requests, channel.total_outbufs_len = Unanswered(), 0
    return channel


def test_the_end_waits_for_answers_but_takes_no_new_work(tmp_path: Path, caller: HTTPChannel) -> None:
    model, before = Gated(), signal.getsignal(signal.SIGTERM)
    tree_service, while_it_waits = TreeService(model, TreeCache(tmp_path, 1 << 20)), list[tuple[str, bool]]()

    def serve() -> None:
        with graceful_shutdown(tree_service, {0: caller, 1: object()}):
            os.kill(os.getpid(), signal.SIGTERM)
            wait_for("looks", lambda: caller.requests.looks > 2, 30)
            while_it_waits.append((tree_service.unavailable_reason, model.closed))
            caller.requests = []
            threading.Event().wait(30)

    with pytest.raises(SystemExit):
        serve()
    assert while_it_waits == [("shutting down", False)]
    assert model.closed
    assert signal.getsignal(signal.SIGTERM) is before


def test_told_twice_it_ends_at_once(tmp_path: Path, caller: HTTPChannel) -> None:
    model, told = Gated(), list[int]()

    def serve() -> None:
        with graceful_shutdown(TreeService(model, TreeCache(tmp_path, 1 << 20)), {0: caller}):
            while len(told) < 3:
                told.append(1)
                os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(SystemExit):
        serve()
    assert (len(told), model.closed) == (2, True)
