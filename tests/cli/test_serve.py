"""`walkcut serve` as a process: what it loads, and how it and its model end."""

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
from tests.builders.models import GatedModel
from tests.builders.processes import free_port, is_running, is_up, wait_for
from tests.builders.scenes import data_url, png, quarters
from walkcut.cli.serve import graceful_shutdown
from walkcut.inference.tree_service import TreeService
from walkcut.storage import TreeCache


@dataclass(frozen=True)
class Server:
    """A running server and its log."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path

    @property
    def model(self) -> int:
        """Id of the last process with the model."""
        return int(re.findall(r"model loaded in process (\d+)", self.log.read_text())[-1])

    def predict(self, body: dict[str, Any]) -> list[Any]:
        answer = requests.post(f"{self.url}/predict", json=body, timeout=60)
        assert answer.ok, answer.text
        return list(answer.json()["results"])

    def metric(self, name: str) -> float:
        """Return the sum of a metric's samples."""
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


def hard_image(seed: int) -> str:
    """Return an image that takes the model a second or more."""
    noise = np.random.default_rng(seed).integers(0, 255, (480, 640, 3), np.uint8)
    return data_url(png(noise))


def resident_mib(pid: int) -> int:
    (line,) = re.findall(r"^VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(line) >> 10


def test_only_the_models_process_loads_torch(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        assert "libtorch" not in Path(f"/proc/{server.process.pid}/maps").read_text()
        assert "libtorch" in Path(f"/proc/{server.model}/maps").read_text()
        assert resident_mib(server.process.pid) < 200


def test_at_sigterm_the_current_image_is_finished_and_the_others_are_not_begun(tmp_path: Path) -> None:
    images = [data_url(png(quarters(100 + index, 160))) for index in range(100)]
    with serving(tmp_path) as server, ThreadPoolExecutor() as callers:
        assert requests.get(f"{server.url}/ready", timeout=10).json() == {"status": "READY"}
        answer: Future[list[Any]] = callers.submit(server.predict, predict_body(*images))
        wait_for("the model at work", lambda: server.metric("walkcut_stage_seconds_count") >= 2, 30)
        server.process.send_signal(signal.SIGTERM)
        results = answer.result()
        assert (bool(results[0]), len(results[-1])) == (True, 0)
        assert server.process.wait(30) == 0
        wait_for("the model's end", lambda: not is_running(server.model), 30)
    assert "Traceback" not in server.log.read_text()


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_server_ends_at_once(tmp_path: Path, signal_number: signal.Signals) -> None:
    with serving(tmp_path) as server:
        server.process.send_signal(signal_number)
        assert server.process.wait(30) == 0
        wait_for("the model's end", lambda: not is_running(server.model), 30)
    assert not [*(tmp_path / "state").glob("*-wal")]  # the database is closed
    assert "Traceback" not in server.log.read_text()


def test_a_killed_server_leaves_no_process_behind(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        assert is_running(server.model)
        server.process.kill()
        wait_for("the model's end", lambda: not is_running(server.model), 30)


def test_a_killed_model_is_replaced_and_the_request_is_answered(tmp_path: Path) -> None:
    with serving(tmp_path) as server, ThreadPoolExecutor() as callers:
        first = server.model
        answer = callers.submit(server.predict, predict_body(hard_image(1)))
        wait_for("the model at work", lambda: server.metric("walkcut_stage_seconds_count") >= 2, 30)
        os.kill(first, signal.SIGKILL)
        assert all(answer.result()), "the request is answered"
        assert server.model != first
        assert server.metric("walkcut_model_crashes_total") == 1
        assert server.metric("walkcut_quarantined") == 0
        assert server.metric("walkcut_model_process_resident_memory_bytes") > 0
        assert server.metric("process_resident_memory_bytes") > 0
        assert server.metric("walkcut_build_info") == 1


@dataclass
class OpenRequests:
    """Requests without an answer, which count how often they are looked at."""

    looks: int = 0

    def __bool__(self) -> bool:
        self.looks += 1
        return True


@pytest.fixture
def channel() -> HTTPChannel:
    """A connection whose client waits for an answer."""
    channel = HTTPChannel.__new__(HTTPChannel)
    channel.requests, channel.total_outbufs_len = OpenRequests(), 0
    return channel


def test_a_shutdown_waits_for_open_requests_but_accepts_no_new_ones(tmp_path: Path, channel: HTTPChannel) -> None:
    model, before = GatedModel(), signal.getsignal(signal.SIGTERM)
    tree_service, during_shutdown = TreeService(model, TreeCache(tmp_path, 1 << 20)), list[tuple[str, bool]]()

    def serve() -> None:
        with graceful_shutdown(tree_service, {0: channel, 1: object()}):
            os.kill(os.getpid(), signal.SIGTERM)
            wait_for("looks", lambda: channel.requests.looks > 2, 30)
            during_shutdown.append((tree_service.unavailable_reason, model.closed))
            channel.requests = []
            threading.Event().wait(30)

    with pytest.raises(SystemExit):
        serve()
    assert during_shutdown == [("shutting down", False)]
    assert model.closed
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_second_signal_ends_the_server_at_once(tmp_path: Path, channel: HTTPChannel) -> None:
    model, signals = GatedModel(), list[int]()

    def serve() -> None:
        with graceful_shutdown(TreeService(model, TreeCache(tmp_path, 1 << 20)), {0: channel}):
            while len(signals) < 3:
                signals.append(signal.SIGINT)
                os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(SystemExit):
        serve()
    assert (len(signals), model.closed) == (2, True)
