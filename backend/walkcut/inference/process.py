"""A process that holds a model, seen from outside and from inside.

It is never left behind: it ends as soon as the process that started it does, and by its own watchdog if it hangs then.
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
from dataclasses import dataclass, field
from logging.handlers import QueueHandler
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

import torch

from walkcut.errors import SettingsError, WalkcutError
from walkcut.images import DecodeLimits
from walkcut.inference.malloc import give_back_memory
from walkcut.inference.tree_service import LocalModel, Picture
from walkcut.segmentation.segmenter import Segmenter
from walkcut.telemetry.stages import observed

log = logging.getLogger(__name__)

_GRACE_S = 10.0  # for a process to end, and beyond the time for a picture until it ends by itself


@dataclass(frozen=True)
class Identity:
    """Which model was loaded."""

    version: str
    method: str


@dataclass(frozen=True)
class TreeFile:
    """The file of a cut tree, and the seconds of each stage."""

    file: bytes
    seconds: list[tuple[str, float]]


@dataclass(frozen=True)
class Defect:
    """An error that is walkcut's own fault; the log has told of it in full."""

    said: str


class ProcessEndedError(Exception):
    """The process is no more; `kind` is "ended" or "hung"."""

    def __init__(self, message: str, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


class ModelProcess:
    """A process that loads a model at once, and then grows trees one at a time within `seconds` each."""

    def __init__(self, load: Callable[[], Segmenter], limits: DecodeLimits, *, seconds: float) -> None:
        context = multiprocessing.get_context("forkserver")  # a plain fork would not survive threads and CUDA
        self._seconds = seconds
        self._connection, theirs = context.Pipe()
        threads = max(1, torch.get_num_threads() - 1)  # one core is for answers; threads that wait for cores spin
        child = _Child(load, limits, seconds, threads, logging.getLogger().level)
        self._process = context.Process(target=child.live, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()

    @property
    def pid(self) -> int:
        """Its number in the system."""
        return self._process.pid or 0

    @property
    def is_alive(self) -> bool:
        """Whether it still runs."""
        return self._process.is_alive()

    def loaded(self) -> Identity:
        """Which model it has, once it has. Raises `SettingsError` where it cannot be loaded."""
        try:
            found = self._receive(None)
        except ProcessEndedError as error:
            raise SettingsError(f"{error} before the model was loaded: see the lines above") from error
        if isinstance(found, WalkcutError):
            raise found
        log.info("the model is loaded, in process %d", self.pid)
        identity: Identity = found
        return identity

    def grow(self, picture: Picture) -> TreeFile | Defect:
        """A picture's cut tree. Raises `ProcessEndedError`, and `WalkcutError` where none can be made of it."""
        with suppress(ConnectionError):  # it has died, as receiving finds out
            self._connection.send(picture)
        found = self._receive(self._seconds)
        if isinstance(found, WalkcutError):
            raise found
        grown: TreeFile | Defect = found
        return grown

    def kill(self) -> None:
        """End it whatever it does; from any thread."""
        self._process.kill()

    def end(self) -> None:
        """End it, and let go of it."""
        self._process.kill()
        self._process.join()
        self._connection.close()

    def _receive(self, seconds: float | None) -> Any:
        """Its next message but for lines of its log, which go into this process's."""
        end = None if seconds is None else time.monotonic() + seconds
        try:
            while self._connection.poll(None if end is None else max(0.0, end - time.monotonic())):
                message = self._connection.recv()
                if not isinstance(message, logging.LogRecord):
                    return message
                logging.getLogger(message.name).handle(message)
        except (EOFError, OSError) as error:
            self._process.join(_GRACE_S)
            code = self._process.exitcode
            killed = ": it was killed, maybe for lack of memory" if code == -signal.SIGKILL else ""
            raise ProcessEndedError(f"the model's process ended (exit code {code}{killed})", "ended") from error
        raise ProcessEndedError(f"the model took longer than {seconds:g} s (WALKCUT_PICTURE_TIMEOUT)", "hung")


class _Line:
    """The connection as seen from the process: several threads may send."""

    def __init__(self, connection: Connection) -> None:
        self._connection, self._lock = connection, threading.Lock()

    def send(self, message: object) -> None:
        with self._lock:
            self._connection.send(message)


class _Forwarding(QueueHandler):
    """Lines of the log, for the process at the other end."""

    def enqueue(self, record: logging.LogRecord) -> None:
        with suppress(OSError):  # nobody is there any more
            self.queue.send(record)  # type: ignore[attr-defined]


@dataclass
class _Stages:
    """Seconds of each stage, as they end."""

    seconds: list[tuple[str, float]] = field(default_factory=list)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        self.seconds.append((name, time.perf_counter() - begin))


@dataclass(frozen=True)
class _Child:
    """What the process needs to know, and its life."""

    load: Callable[[], Segmenter]
    limits: DecodeLimits
    seconds: float
    threads: int
    log_level: int

    def live(self, connection: Connection) -> None:
        """Load the model, and grow trees until nobody is there to ask for them."""
        for number in (signal.SIGINT, signal.SIGTERM):  # they may go to all processes: it is told to end in another way
            signal.signal(number, signal.SIG_IGN)
        faulthandler.enable()
        line, pictures = _Line(connection), SimpleQueue[Picture]()
        logging.getLogger().setLevel(self.log_level)
        logging.getLogger().addHandler(_Forwarding(line))  # type: ignore[arg-type]
        threading.Thread(target=_receive, args=(connection, pictures), daemon=True).start()
        torch.set_num_threads(self.threads)
        with suppress(ConnectionError):
            try:
                segmenter = self.load()
            except (WalkcutError, OSError) as error:
                line.send(SettingsError(str(error)))
                return
            line.send(Identity(segmenter.version, segmenter.recipe.name))
            while True:
                line.send(self._answer(segmenter, pictures.get()))
                give_back_memory()

    def _answer(self, segmenter: Segmenter, picture: Picture) -> TreeFile | WalkcutError | Defect:
        """A picture's tree, or its error; where the device is of no use any more, the process ends."""
        faulthandler.dump_traceback_later(self.seconds + _GRACE_S, exit=True)
        stages = _Stages()
        try:
            with observed(stages):
                return TreeFile(LocalModel(segmenter, self.limits).grow(picture), stages.seconds)
        except WalkcutError as error:
            return error
        except Exception as error:
            log.exception("a picture failed: a defect of walkcut, please report it")
            if segmenter.device.type == "cuda":
                torch.cuda.synchronize(segmenter.device)  # raises after a fault of CUDA, and for ever
            return Defect(f"{type(error).__name__}: {error}")
        finally:
            faulthandler.cancel_dump_traceback_later()


def _receive(connection: Connection, pictures: "SimpleQueue[Picture]") -> None:
    """Take in pictures, and end the process when nobody is at the other end."""
    with suppress(EOFError, OSError):
        while True:
            pictures.put(connection.recv())
    os._exit(0)
