"""The process that holds the model, as the server sees it and from inside.

The process never outlives the server: it ends when the pipe to the server closes, or by its own watchdog if it hangs.
"""

import faulthandler
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from logging.handlers import QueueHandler
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from walkcut.errors import BUG, SettingsError, WalkcutError
from walkcut.images import DecodeLimits
from walkcut.inference.malloc import malloc_trim
from walkcut.inference.model import ImageRequest, InProcessModel
from walkcut.telemetry.spans import record_spans, timer

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerContext, SpawnContext

    from walkcut.segmentation.segmenter import Segmenter

log = logging.getLogger(__name__)

_KILLED = -9  # exit code after the signal SIGKILL, which Windows lacks
_GRACE_S = 10.0  # for a process to end, and after an image's timeout before the watchdog ends the process


@dataclass(frozen=True)
class ModelInfo:
    """Version and preset of the loaded model."""

    version: str
    preset_name: str


@dataclass(frozen=True)
class SegmentResult:
    """The file of a cut tree, and the seconds of each stage."""

    file: bytes
    seconds: list[tuple[str, float]]


class ModelFailureError(Exception):
    """A bug in walkcut that the process met; its traceback is in the log."""


class ProcessEndedError(Exception):
    """The process has ended; `kind` is "ended" or "hung"."""

    def __init__(self, message: str, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


def start_context() -> "ForkServerContext | SpawnContext":
    """Return how processes are started: a plain fork would not survive threads and CUDA, and Windows has only spawn."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    from multiprocessing import forkserver  # noqa: PLC0415 - Windows lacks it

    with _safe_path():
        forkserver.ensure_running()
    return multiprocessing.get_context("forkserver")


@contextmanager
def _safe_path() -> Iterator[None]:
    """Let Python 3.11 and later start without modules of the working folder, such as an `http.py` beside images."""
    name, environment = "PYTHONSAFEPATH", os.environ  # noqa: TID251 - of Python, and for a new process
    before = environment.get(name)
    environment[name] = "1"
    try:
        yield
    finally:
        environment.pop(name)
        environment.update({name: before} if before else {})


class ModelProcess:
    """A process that loads a model when it starts and then segments one image at a time, in `timeout` seconds each."""

    def __init__(self, factory: Callable[[], "Segmenter"], limits: DecodeLimits, *, timeout: float) -> None:
        context = start_context()
        self._timeout = timeout
        self._connection, connection = context.Pipe()
        arguments = (connection, factory, limits, timeout, logging.getLogger().level)
        self._process = context.Process(target=_run, args=arguments, daemon=True)
        self._process.start()
        connection.close()

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid or 0

    @property
    def is_alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.is_alive()

    def wait_until_loaded(self) -> ModelInfo:
        """Wait for the model and return what was loaded. Raises `SettingsError` if it cannot be loaded."""
        try:
            info: ModelInfo = self._receive(None)
        except ProcessEndedError as error:
            raise SettingsError(f"{error} before the model was loaded: see the log above") from error
        log.info("model loaded in process %d", self.pid)
        return info

    def segment(self, request: ImageRequest) -> SegmentResult:
        """Return an image's cut tree. Raises `ProcessEndedError`, `ModelFailureError`, `WalkcutError`."""
        with suppress(ConnectionError):  # a dead process is noticed when receiving
            self._connection.send(request)
        result: SegmentResult = self._receive(self._timeout)
        return result

    def kill(self) -> None:
        """Kill the process, whatever it does; from any thread."""
        self._process.kill()

    def end(self) -> None:
        """Kill the process and release it."""
        self._process.kill()
        self._process.join()
        self._connection.close()

    def _receive(self, timeout: float | None) -> Any:
        """Return the next message; raise errors, and hand log records on the way to this process's log."""
        end = None if timeout is None else time.monotonic() + timeout
        try:
            while self._connection.poll(None if end is None else max(0.0, end - time.monotonic())):
                match self._connection.recv():
                    case logging.LogRecord() as record:
                        logging.getLogger(record.name).handle(record)
                    case Exception() as error:
                        raise error
                    case message:
                        return message
        except (EOFError, OSError) as error:
            self._process.join(_GRACE_S)
            code = self._process.exitcode
            killed = ": it was killed, maybe for lack of memory" if code == _KILLED else ""
            raise ProcessEndedError(f"the model's process ended (exit code {code}{killed})", "ended") from error
        raise ProcessEndedError(f"the model took longer than {timeout:g} s (WALKCUT_SEGMENT_TIMEOUT)", "hung")


class _ServerQueue:
    """The way to the server, for answers and, as the queue of a log handler, for the log records of all threads."""

    def __init__(self, connection: Connection) -> None:
        self._connection, self._lock = connection, threading.Lock()

    def put_nowait(self, message: object) -> None:
        with self._lock, suppress(ConnectionError):  # the server has ended: so will this process
            self._connection.send(message)


def _run(
    connection: Connection, factory: Callable[[], "Segmenter"], limits: DecodeLimits, timeout: float, log_level: int
) -> None:
    """Load the model in this process and segment images until the server has ended."""
    for signal_number in (signal.SIGINT, signal.SIGTERM):  # they may go to the whole process group
        signal.signal(signal_number, signal.SIG_IGN)
    faulthandler.enable()
    server, requests = _ServerQueue(connection), SimpleQueue[ImageRequest]()
    logging.getLogger().setLevel(log_level)
    logging.getLogger().addHandler(QueueHandler(server))  # type: ignore[arg-type]
    threading.Thread(target=_receive, args=(connection, requests), daemon=True).start()
    try:
        import torch  # noqa: PLC0415 - in this process alone

        torch.set_num_threads(max(1, torch.get_num_threads() - 1))  # threads spin: one core is for the server
        model = InProcessModel(factory(), limits)
    except (WalkcutError, OSError) as error:
        server.put_nowait(SettingsError(str(error)))
        return
    server.put_nowait(ModelInfo(model.version, model.preset_name))
    while True:
        server.put_nowait(_answer(model, requests.get(), timeout))
        malloc_trim()


def _receive(connection: Connection, requests: "SimpleQueue[ImageRequest]") -> None:
    """Queue requests, and end the process when the server has ended."""
    with suppress(EOFError, OSError):
        while True:
            requests.put(connection.recv())
    os._exit(0)


def _answer(model: InProcessModel, request: ImageRequest, timeout: float) -> SegmentResult | Exception:
    """Return an image's tree or its error; end the process when the device is broken."""
    faulthandler.dump_traceback_later(timeout + _GRACE_S, exit=True)
    seconds: list[tuple[str, float]] = []
    try:
        with record_spans(timer(lambda *stage: seconds.append(stage))):
            return SegmentResult(model.segment(request), seconds)
    except WalkcutError as error:
        return error
    except Exception as error:
        log.exception("an image failed: %s", BUG)
        model.segmenter.check_device()
        return ModelFailureError(f"{type(error).__name__}: {error}")
    finally:
        faulthandler.cancel_dump_traceback_later()
