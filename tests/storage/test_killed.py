"""A backend that is killed at any moment has stored every annotation that it acknowledged."""

import itertools
import multiprocessing
import random
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import requests
import waitress

from tests.builders.processes import free_port, is_up, wait_for
from walkcut.serving.app import create_app
from walkcut.serving.backend import Backend
from walkcut.settings import Settings
from walkcut.storage import ProjectStore
from walkcut.telemetry.metrics import Metrics

KILLS = 12
START_S = 60.0


def serve(folder: Path, url: str, port: int) -> None:
    """Run a backend that accepts webhooks, as `walkcut serve` does."""
    nothing = cast(Any, None)
    backend = Backend(Settings(), nothing, nothing, nothing, ProjectStore(folder, url), None, nothing)
    app = create_app(backend, Metrics())
    waitress.serve(app, host="127.0.0.1", port=port, threads=8)


def webhook(number: int) -> dict[str, Any]:
    annotation = {"id": number, "updated_at": "2026-11-20T08:38:56Z", "result": [number] * 5000}
    return {"action": "ANNOTATION_CREATED", "project": {"id": 7}, "task": {"id": number}, "annotation": annotation}


class Poster(threading.Thread):
    """Posts webhooks until it is stopped, and keeps the numbers of the acknowledged ones."""

    def __init__(self, numbers: "itertools.count[int]", port: int, stop: threading.Event) -> None:
        super().__init__()
        self._numbers, self._url, self._stop_posting = numbers, f"http://127.0.0.1:{port}/webhook", stop
        self.acknowledged: list[int] = []

    def run(self) -> None:
        while not self._stop_posting.is_set():
            number = next(self._numbers)
            try:
                if requests.post(self._url, json=webhook(number), timeout=30).ok:
                    self.acknowledged.append(number)
            except requests.RequestException:
                self._stop_posting.wait(0.02)


def test_no_acknowledged_annotation_is_lost(tmp_path: Path, url: str, opened: Callable[[], ProjectStore]) -> None:
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["walkcut.serving.app", "waitress"])
    chance, port, stop, numbers = random.Random(0), free_port(), threading.Event(), itertools.count()
    posters = [Poster(numbers, port, stop) for _ in range(4)]
    for poster in posters:
        poster.start()
    try:
        for _ in range(KILLS):
            server = processes.Process(target=serve, args=(tmp_path, url, port))
            server.start()
            wait_for("the backend", lambda: is_up(f"http://127.0.0.1:{port}"), START_S)
            time.sleep(chance.uniform(0, 0.3))
            server.kill()
            server.join()
    finally:
        stop.set()
        for poster in posters:
            poster.join()
    annotations, stored = opened().annotations, {}
    while attempt := annotations.next_attempt(time.time(), lambda _: 3600.0):
        stored[attempt.row.annotation_id] = attempt.row.submission["annotation"]["result"]
    acknowledged = {number for poster in posters for number in poster.acknowledged}
    assert len(acknowledged) > KILLS
    assert acknowledged <= stored.keys()
    assert all(result == [number] * 5000 for number, result in stored.items())
    if not url:
        with sqlite3.connect(tmp_path / "walkcut.sqlite3") as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        connection.close()
