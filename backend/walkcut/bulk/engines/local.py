"""The engine of one machine: images through processes, in any order, with no more under way than is bounded.

Each process is made once, holds its model, and reads a few images ahead. One that dies is replaced.
"""

import logging
import multiprocessing
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
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch

from walkcut.bulk.checkpoint import CheckpointEntry, ItemFailure, Outcome
from walkcut.bulk.items import Item
from walkcut.bulk.steps import LoadStep, Plan, SegmentedImage, SegmentStep, make_export_worker, make_full_worker
from walkcut.errors import SettingsError, WalkcutError
from walkcut.segmentation.segmenter import Segmenter

log = logging.getLogger(__name__)

Job = Item | CheckpointEntry | SegmentedImage | ItemFailure
Value = TypeVar("Value")
Result = TypeVar("Result")

_AHEAD = 2  # images that a process reads while it works on one
_ATTEMPTS = 2
READERS = 4  # threads that read for the process with the model


@runtime_checkable
class Worker(Protocol):
    """What a process does: `prefetch` in threads, ahead of `run`."""

    def prefetch(self, job: Any) -> Any:
        """The part that waits for disks and networks."""
        ...

    def run(self, prepared: Any) -> Outcome:
        """The rest. Failures pass through both."""
        ...


def model_per_process(
    plan: Plan, out: Path, load: Callable[[], Segmenter], items: Iterable[Item | ItemFailure], *, processes: int
) -> Iterator[Outcome]:
    """Each image in one of several processes with a model of its own and one thread for it: for the CPU."""
    return in_processes(partial(make_full_worker, plan, out, load), items, processes=processes)


def shared_model(
    plan: Plan, out: Path, segmenter: Segmenter, items: Iterable[Item | ItemFailure], *, processes: int
) -> Iterator[Outcome]:
    """Each image through the one model here, for a GPU: threads read before it, processes finish after it."""
    with ThreadPoolExecutor(READERS) as readers, ThreadPoolExecutor(READERS) as packers:
        images = prefetched(readers, LoadStep(plan), items)
        grown = prefetched(packers, _packed, map(SegmentStep(segmenter), images))
        yield from in_processes(partial(make_export_worker, plan, out), grown, processes=processes)


def in_processes(make: Callable[[], Worker], jobs: Iterable[Job], *, processes: int) -> Iterator[Outcome]:
    """What the work that `make` makes in each of the processes comes to, job by job, in any order.

    A job whose process dies is tried once more, and then fails. Raises `SettingsError` for a process that dies before
    it is ready, and what `make` and the work raise.
    """
    attempts = _Attempts(jobs)
    crew = [_WorkerProcess(make) for _ in range(processes)]
    try:
        while True:
            _dispatch(attempts, crew)
            if not any(hand.attempts for hand in crew):
                return
            ready = set(wait([hand.connection for hand in crew]))
            for place, hand in enumerate(crew):
                if hand.connection not in ready:
                    continue
                try:
                    yield from hand.take()
                except (EOFError, OSError):
                    yield from _handle_death(hand, attempts)
                    crew[place] = _WorkerProcess(make)
    finally:
        for hand in crew:
            hand.end()


@dataclass(frozen=True)
class _Attempt:
    """A job, and which attempt at it this is."""

    job: Job
    number: int = 1


class _Attempts:
    """What is to be done next: jobs that a process left behind when it died, and then new ones."""

    def __init__(self, jobs: Iterable[Job]) -> None:
        self._again: deque[_Attempt] = deque()
        self._new = map(_Attempt, jobs)

    def next(self) -> _Attempt | None:
        """The next one, or `None` at the end."""
        return self._again.popleft() if self._again else next(self._new, None)

    def put_back(self, attempt: _Attempt) -> None:
        """Try a job again."""
        self._again.append(attempt)


class _WorkerProcess:
    """A process at work, seen from here: jobs go in, outcomes come out in the same order."""

    def __init__(self, make: Callable[[], Worker]) -> None:
        context = multiprocessing.get_context("forkserver")  # imports once, and starts others in no time
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(make, theirs), daemon=True)
        with _interrupts_ignored():  # and so they are by the process: it is told to end by this one
            self.process.start()
        theirs.close()
        self.is_ready = False
        self.attempts: deque[_Attempt] = deque()

    def give(self, attempt: _Attempt) -> None:
        """Send a job."""
        self.attempts.append(attempt)
        with suppress(BrokenPipeError):  # it has died, as `take` finds out
            self.connection.send(attempt.job)

    def take(self) -> Iterator[Outcome]:
        """The next outcome, if this is one. Raises `EOFError` or `OSError` where the process has died."""
        message = self.connection.recv()
        if isinstance(message, WalkcutError):
            raise message
        if self.is_ready:
            self.attempts.popleft()
            yield message
        self.is_ready = True

    def end(self) -> None:
        """End the process, which has nothing to lose."""
        self.connection.close()
        self.process.kill()
        self.process.join()


def _dispatch(attempts: _Attempts, crew: Sequence[_WorkerProcess]) -> None:
    """Give jobs to the processes that have the fewest, until each has enough."""
    while len((hand := min(crew, key=lambda hand: len(hand.attempts))).attempts) <= _AHEAD:
        attempt = attempts.next()
        if attempt is None:
            return
        hand.give(attempt)


def _handle_death(hand: _WorkerProcess, attempts: _Attempts) -> Iterator[ItemFailure]:
    """What becomes of the jobs of a process that has died: the first one was at work."""
    hand.end()
    end = f"a process ended (exit code {hand.process.exitcode}; -9: it was killed, maybe for lack of memory)"
    remedy = "use fewer --workers, or scale large images down"
    if not hand.is_ready:
        raise SettingsError(f"{end} before it could begin: {remedy}")
    for place, attempt in enumerate(hand.attempts):
        if place:
            attempts.put_back(attempt)
        elif attempt.number < _ATTEMPTS:
            log.warning("%s: its image is tried once more", end)
            attempts.put_back(_Attempt(attempt.job, attempt.number + 1))
        else:
            item = attempt.job if isinstance(attempt.job, Item | ItemFailure) else attempt.job.item
            yield ItemFailure(item.key, item.reference, "work", f"{end}, {_ATTEMPTS} times: {remedy}")


def _serve(make: Callable[[], Worker], connection: Connection) -> None:
    """The life of a process: make the work, do jobs until there are no more."""
    torch.set_num_threads(1)
    try:
        work = make()
    except WalkcutError as error:
        connection.send(error)
        return
    prepared: SimpleQueue[Future[Any] | None] = SimpleQueue()
    with ThreadPoolExecutor(_AHEAD) as readers, suppress(BrokenPipeError):  # the process at the other end has died
        threading.Thread(target=_receive, args=(connection, work, readers, prepared), daemon=True).start()
        connection.send(None)
        while (job := prepared.get()) is not None:
            connection.send(_completed(work, job.result()))


def _completed(work: Worker, prepared: Any) -> Outcome | WalkcutError:
    """What a job comes to, or the error that is to end the run."""
    try:
        return work.run(prepared)
    except WalkcutError as error:
        return error


def _receive(
    connection: Connection, work: Worker, readers: ThreadPoolExecutor, prepared: "SimpleQueue[Future[Any] | None]"
) -> None:
    """Take in jobs as they come, so that whoever sends them never waits; there are never more than a few."""
    with suppress(EOFError, OSError):
        while True:
            prepared.put(readers.submit(work.prefetch, connection.recv()))
    prepared.put(None)


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Ctrl-C means nothing to processes that start now; only a main thread may say so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def prefetched(pool: ThreadPoolExecutor, step: Callable[[Value], Result], values: Iterable[Value]) -> Iterator[Result]:
    """Results in order, with a few more being worked on in the pool than were asked for."""
    under_way: deque[Future[Result]] = deque()
    for value in values:
        under_way.append(pool.submit(step, value))
        if len(under_way) > READERS:
            yield under_way.popleft().result()
    while under_way:
        yield under_way.popleft().result()


def _packed(grown: SegmentedImage | ItemFailure) -> SegmentedImage | ItemFailure:
    return grown if isinstance(grown, ItemFailure) else grown.packed()
