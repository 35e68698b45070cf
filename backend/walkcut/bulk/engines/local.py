"""Engine of one machine: worker processes, outcomes in any order, a bounded number of jobs in flight.

Each process is started once and prefetches a few images. A process that dies is replaced.
"""

import logging
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from walkcut.bulk.items import CheckpointEntry, Item, ItemFailure, Job, Outcome, failure_of
from walkcut.bulk.plan import Plan
from walkcut.bulk.workers import (
    ImageSegmenter,
    SegmentedImage,
    Worker,
    make_export_worker,
    make_full_worker,
    make_load_worker,
    make_reexport_worker,
    prefetched,
    segment,
    serialize_tree,
)
from walkcut.errors import SettingsError, WalkcutError
from walkcut.inference.process import start_context

log = logging.getLogger(__name__)

_MAX_ATTEMPTS = 2
_PREFETCH = 2  # jobs that a process prefetches while it runs one
_WORKERS = "walkcut.bulk.workers"  # what processes without a model load


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def model_per_process(
    plan: Plan,
    output_dir: Path,
    make_segmenter: Callable[[], ImageSegmenter],
    items: Iterable[Item | ItemFailure],
    *,
    processes: int,
) -> Iterator[Outcome]:
    """Process each image in one of several processes with a single-threaded model: for the CPU."""
    multiprocessing.set_forkserver_preload([_WORKERS, "walkcut.segmentation.segmenter"])
    make_worker = partial(_make_single_threaded_worker, plan, output_dir, make_segmenter)
    return in_processes(make_worker, items, processes=processes)


def shared_model(
    plan: Plan, output_dir: Path, segmenter: ImageSegmenter, items: Iterable[Item | ItemFailure], *, processes: int
) -> Iterator[Outcome]:
    """Process each image with the one model of this process, for a GPU; threads load, and processes export."""
    multiprocessing.set_forkserver_preload([_WORKERS])
    loaded = prefetched(make_load_worker(plan), items)
    segmented = prefetched(serialize_tree, map(partial(segment, segmenter=segmenter), loaded))
    return in_processes(partial(make_export_worker, plan, output_dir), segmented, processes=processes)


def reexport(
    plan: Plan, output_dir: Path, tree_dir: Path, entries: Iterable[CheckpointEntry], *, processes: int
) -> Iterator[Outcome]:
    """Export the images of an earlier run again, from their cached trees."""
    multiprocessing.set_forkserver_preload([_WORKERS])
    return in_processes(partial(make_reexport_worker, plan, tree_dir, output_dir), entries, processes=processes)


def _make_single_threaded_worker(plan: Plan, output_dir: Path, make_segmenter: Callable[[], ImageSegmenter]) -> Worker:
    import torch  # noqa: PLC0415 - only processes with a model load it

    torch.set_num_threads(1)
    return make_full_worker(plan, output_dir, make_segmenter)


@dataclass(frozen=True)
class _Attempt:
    """A job, and which attempt at it this is."""

    job: Job | SegmentedImage
    index: int = 1


class _WorkerProcess:
    """A process with a worker, and the attempts that were sent to it."""

    def __init__(self, make_worker: Callable[[], Worker]) -> None:
        context = start_context()
        self.connection, child_connection = context.Pipe()
        self.process = context.Process(target=_serve, args=(make_worker, child_connection), daemon=True)
        with _interrupts_ignored():  # the process inherits this: it is ended by `end`
            self.process.start()
        child_connection.close()
        self.is_ready = False
        self.attempts: deque[_Attempt] = deque()

    def send(self, attempt: _Attempt) -> None:
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
    with ThreadPoolExecutor(_PREFETCH) as pool, suppress(BrokenPipeError):  # the main process has died
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
    with suppress(EOFError, OSError, RuntimeError):  # the connection is closed, or the pool after an error
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


def in_processes(
    make_worker: Callable[[], Worker], jobs: Iterable[Job | SegmentedImage], *, processes: int
) -> Iterator[Outcome]:
    """Yield the outcome of each job, in any order, from processes with a worker each.

    A job whose process dies is tried once more, and then fails. Raises `SettingsError` for a process that dies before
    it is ready, and the errors of `make_worker` and of the workers.
    """
    retries, new = deque[_Attempt](), map(_Attempt, jobs)
    workers = [_WorkerProcess(make_worker) for _ in range(processes)]
    try:
        while True:
            _dispatch(retries, new, workers)
            if not any(worker.attempts for worker in workers):
                return
            ready = set(wait([worker.connection for worker in workers]))
            for index, worker in enumerate(workers):
                if worker.connection not in ready:
                    continue
                try:
                    yield from worker.receive()
                except (EOFError, OSError):
                    yield from _handle_death(worker, retries)
                    workers[index] = _WorkerProcess(make_worker)
    finally:
        for worker in workers:
            worker.end()


def _dispatch(retries: deque[_Attempt], new: Iterator[_Attempt], workers: Sequence[_WorkerProcess]) -> None:
    """Send jobs to the workers with the fewest, until each has one to run and `_PREFETCH` to prefetch."""
    while len((worker := min(workers, key=lambda worker: len(worker.attempts))).attempts) <= _PREFETCH:
        attempt = retries.popleft() if retries else next(new, None)
        if attempt is None:
            return
        worker.send(attempt)


def _handle_death(worker: _WorkerProcess, retries: deque[_Attempt]) -> Iterator[ItemFailure]:
    """Retry the jobs of a dead process; the first one was running, and fails after its last attempt."""
    worker.end()
    death = f"a process ended (exit code {worker.process.exitcode}; -9: it was killed, perhaps for lack of memory)"
    remedy = "use fewer --workers, or scale large images down"
    if not worker.is_ready:
        raise SettingsError(f"{death} before it was ready: {remedy}")
    for index, attempt in enumerate(worker.attempts):
        if index:
            retries.append(attempt)
        elif attempt.index < _MAX_ATTEMPTS:
            log.warning("%s: its image is tried once more", death)
            retries.append(_Attempt(attempt.job, attempt.index + 1))
        else:
            yield failure_of(attempt.job, "work", f"{death}, {_MAX_ATTEMPTS} times: {remedy}")
