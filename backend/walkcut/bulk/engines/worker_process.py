"""Worker processes of one machine: jobs go in, outcomes come out in the same order."""

import multiprocessing
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

from walkcut.bulk.items import Job, Outcome
from walkcut.bulk.workers import SegmentedImage, Worker
from walkcut.errors import WalkcutError

WorkerJob = Job | SegmentedImage

PREFETCH = 2  # jobs that a process prefetches while it runs one


@dataclass(frozen=True)
class Attempt:
    """A job, and which attempt at it this is."""

    job: WorkerJob
    index: int = 1


class WorkerProcess:
    """A process with a worker, and the attempts that were sent to it."""

    def __init__(self, make_worker: Callable[[], Worker]) -> None:
        context = multiprocessing.get_context("forkserver")  # loads modules once, then starts processes at once
        self.connection, child_connection = context.Pipe()
        self.process = context.Process(target=_serve, args=(make_worker, child_connection), daemon=True)
        with _interrupts_ignored():  # the process inherits this: it is ended by `end`
            self.process.start()
        child_connection.close()
        self.is_ready = False
        self.attempts: deque[Attempt] = deque()

    def send(self, attempt: Attempt) -> None:
        """Send a job."""
        self.attempts.append(attempt)
        with suppress(BrokenPipeError):  # the process has died: `receive` raises
            self.connection.send(attempt.job)

    def receive(self) -> Iterator[Outcome]:
        """Yield the next outcome, or nothing for the message that the process is ready.

        Raises `EOFError` or `OSError` if the process has died, and the errors of the worker.
        """
        message = self.connection.recv()
        if isinstance(message, WalkcutError):
            raise message
        if self.is_ready:
            self.attempts.popleft()
            yield message
        self.is_ready = True

    def end(self) -> None:
        """Kill the process, which has nothing to lose."""
        self.connection.close()
        self.process.kill()
        self.process.join()


def _serve(make_worker: Callable[[], Worker], connection: Connection) -> None:
    """Make the worker, and run jobs until the connection is closed or an error ends the run."""
    queue: SimpleQueue[Future[Any] | None] = SimpleQueue()
    with ThreadPoolExecutor(PREFETCH) as pool, suppress(BrokenPipeError):  # the main process has died
        try:
            worker = make_worker()
            threading.Thread(target=_receive_jobs, args=(connection, worker, pool, queue), daemon=True).start()
            connection.send(None)
            while (prefetched := queue.get()) is not None:
                connection.send(worker.run(prefetched.result()))
        except WalkcutError as error:
            connection.send(error)


def _receive_jobs(
    connection: Connection, worker: Worker, pool: ThreadPoolExecutor, queue: "SimpleQueue[Future[Any] | None]"
) -> None:
    """Queue jobs as they arrive, so that the sender never waits; there are never more than a few."""
    with suppress(EOFError, OSError):
        while True:
            queue.put(pool.submit(worker.prefetch, connection.recv()))
    queue.put(None)


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Ignore Ctrl-C, also in processes that are started inside; only the main thread can change that."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
