"""A `walkcut serve` whose surroundings a test breaks, asked as Label Studio asks."""

import itertools
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import requests

from benchmarks.processes import descendants
from tests.builders.processes import STOP_S, free_port, is_up, wait_for
from tests.builders.scenes import data_url, png, quarters
from walkcut.labelstudio.shapes import rle
from walkcut.storage import ProjectStore

PROJECT = "7"
LABELS = '<Label value="Region" neutral="true"/><Label value="Car"/>'
CONFIG = (
    f'<View><Image name="im" value="$photo"/><BrushLabels name="b" toName="im">{LABELS}</BrushLabels>'
    '<TextArea name="t" toName="im"/></View>'
)
SIZE = (30, 40)
FILE = png(quarters(*SIZE))
IMAGE = data_url(FILE)
NOON = "2026-11-20T12:00:00Z"
PATIENCE_S = 90.0  # on a machine that has other work: no test needs it

Json = dict[str, Any]


def make_image(number: int) -> bytes:
    """A file that is different for each number."""
    return png(quarters(SIZE[0], SIZE[1] + number))


class Backend:
    """A backend with its state and its log in `folder`; started and ended as often as one likes.

    The command `through` runs it, if there is one.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str], *, through: Sequence[str] = ()) -> None:
        self.state, self._log, self._port = folder / "state", folder / "walkcut.log", free_port()
        self.url, self._through = f"http://127.0.0.1:{self._port}", through
        self.environment = {
            "WALKCUT_STATE_DIR": str(self.state),
            "WALKCUT_ALLOW_PRIVATE_HOSTS": "true",
            "WALKCUT_THREADS": "16",
            **environment,
        }
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        """All that it said so far."""
        return self._log.read_text(encoding="utf-8", errors="replace") if self._log.exists() else ""

    @property
    def pid(self) -> int:
        """The process's number."""
        assert self.process is not None
        return self.process.pid

    def launch(self) -> "subprocess.Popen[bytes]":
        """Start it, and do not wait."""
        command = [*self._through, sys.executable, "-m", "walkcut", "serve", "--port", str(self._port)]
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(command, env={**os.environ, **self.environment}, stdout=log, stderr=log)
        return self.process

    def start(self) -> None:
        """Start it, and wait until it answers."""
        process = self.launch()

        def ready() -> bool:
            if process.poll() is not None:
                raise RuntimeError(f"walkcut ended with status {process.returncode}:\n{self.log[-3000:]}")
            return is_up(self.url)

        wait_for(f"walkcut (log: {self._log})", ready, PATIENCE_S)

    @property
    def database(self) -> Path:
        """The database of a backend from `running_with_studio`."""
        return self.state.parent / "state.sqlite3"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Let another program write into the database for as long as the block takes."""
        with closing(sqlite3.connect(self.database, timeout=PATIENCE_S)) as other:
            other.execute("BEGIN IMMEDIATE")
            yield
            other.rollback()

    def open_store(self) -> closing[ProjectStore]:
        """Open what it has stored."""
        return closing(ProjectStore(self.state, self.environment.get("WALKCUT_DATABASE_URL", "")))

    def kill(self) -> None:
        """End it as a power cut does."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """End it as an operator does."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.kill()

    def says(self, *words: str, after: int = 0) -> None:
        """Wait until its log holds these words beyond the first `after` characters."""
        wait_for(f"{words} in {self._log}", lambda: all(word in self.log[after:] for word in words), PATIENCE_S)

    def post(self, path: str, document: Json) -> requests.Response:
        """An answer, whatever its status."""
        return requests.post(f"{self.url}{path}", json=document, timeout=PATIENCE_S)

    def predict(self, *references: str, line: str = "") -> list[Any]:
        """The results for images; with a line, for an annotator who typed it."""
        context = {"result": [{"type": "textarea", "value": {"text": [line]}}]} if line else None
        tasks = [{"id": number, "data": {"photo": reference}} for number, reference in enumerate(references, 1)]
        body = {"tasks": tasks, "project": f"{PROJECT}.1", "label_config": CONFIG, "params": {"context": context}}
        answer = self.post("/predict", body)
        assert answer.status_code == 200, answer.text
        return list(answer.json()["results"])

    def set_up(self) -> requests.Response:
        """What Label Studio sends before most calls."""
        return self.post("/setup", {"project": f"{PROJECT}.1", "schema": CONFIG, "hostname": "", "extra_params": None})

    def submit(self, annotation: int, reference: str = IMAGE, **more: Any) -> requests.Response:
        """An annotation of this number."""
        return self.post("/webhook", submitted(annotation, reference, **more))

    def stored(self) -> tuple[set[int], set[int]]:
        """The annotations that are in the store, and those that taught."""
        with self.open_store() as store:
            learned = {feedback["annotation_id"] for feedback, _ in store.annotations.all_feedback(PROJECT)}
            return set(store.annotations.known(PROJECT)), learned

    def learns(self, *annotations: int) -> None:
        """Wait until it has learned from these."""
        wait_for(f"feedback of {annotations}", lambda: self.stored()[1] >= set(annotations), PATIENCE_S)


def submitted(annotation: int, reference: str = IMAGE, *, padding: int = 0, size: tuple[int, int] = SIZE) -> Json:
    """The webhook of an annotation, with so many more bytes."""
    mask = np.zeros(size, bool)
    mask[: size[0] // 2] = True
    value = {"rle": rle.encode(mask), "brushlabels": ["Car"], "format": "rle"}
    result = [{"id": "r", "type": "brushlabels", "from_name": "b", "to_name": "im", "value": value}]
    document = {"id": annotation, "result": result, "updated_at": NOON, "was_cancelled": False}
    more = random.Random(annotation).randbytes(padding // 2).hex()  # which cannot be compressed
    task = {"id": annotation, "data": {"photo": reference, "more": more}, "meta": {}}
    project = {"id": int(PROJECT), "label_config": CONFIG}
    return {"action": "ANNOTATION_CREATED", "task": task, "annotation": document, "project": project}


@contextmanager
def running(folder: Path, through: Sequence[str] = (), **environment: str) -> Iterator[Backend]:
    """A backend that is up when the block begins, and ends with it."""
    backend = Backend(folder, environment, through=through)
    backend.start()
    try:
        yield backend
    finally:
        backend.stop()


@contextmanager
def running_with_studio(folder: Path, port: int, sync_interval: int) -> Iterator[Backend]:
    """A backend on SQLite whose project is set up, with short time-outs and a Label Studio that may be at `port`."""
    folder.mkdir(exist_ok=True)
    with running(
        folder,
        WALKCUT_DATABASE_URL=f"sqlite:///{folder / 'state.sqlite3'}?timeout=1",
        WALKCUT_FETCH_TIMEOUT="1",
        WALKCUT_SYNC_INTERVAL=str(sync_interval),
        LABEL_STUDIO_URL=f"http://127.0.0.1:{port}",
        LABEL_STUDIO_API_KEY="0123456789abcdef",
    ) as backend:
        assert backend.set_up().ok
        yield backend


@contextmanager
def submitting(backend: Backend, first: int = 1) -> Iterator[list[int]]:
    """Annotations are submitted one after the other, whatever the answers, while the block runs.

    The list holds those that were acknowledged.
    """
    acknowledged, stop = list[int](), threading.Event()

    def submit() -> None:
        for number in itertools.count(first):
            if stop.wait(0.2):
                return
            try:
                if backend.submit(number).ok:
                    acknowledged.append(number)
            except requests.RequestException:
                stop.wait(0.1)

    annotator = threading.Thread(target=submit)
    annotator.start()
    try:
        yield acknowledged
    finally:
        stop.set()
        annotator.join()


def kill_model(backend: Backend) -> None:
    """End the process that holds the model: of those that the backend has started, the one with the most threads."""
    os.kill(
        max(descendants(backend.pid), key=lambda pid: len(list(Path(f"/proc/{pid}/task").glob("*")))), signal.SIGKILL
    )
