"""Processes of a Ray cluster: a stage of the work, for blocks of a few jobs.

Ray repeats a block whose process dies, without a limit and without a message. Hence attempts are noted in the run's
folder: a block that was started before is processed job by job, and a job that was started alone twice fails.
"""

import hashlib
import json
import pickle  # noqa: TID251  # nosec B403 - between processes of one run
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from walkcut.bulk.engines.ray_cluster import verify_marker
from walkcut.bulk.items import ItemFailure, failure_of, item_of
from walkcut.bulk.workers import Worker, prefetched
from walkcut.errors import SettingsError, WalkcutError

_MAX_ATTEMPTS = 2  # at a job alone
_JOB = "job"


@dataclass(frozen=True)
class Stage:
    """A part of the work, and the cores (maybe a fraction of one) and GPUs of each process that does it.

    An auxiliary stage serves the one with the model.
    """

    make_worker: Callable[[], Worker]
    cpus: float = 1
    gpus: int = 0
    is_auxiliary: bool = False


@dataclass(frozen=True)
class Pool:
    """At most `max_processes` processes of the stage with this index."""

    index: int
    stage: Stage
    max_processes: int
    notes_dir: Path  # in which attempts are noted
    markers: Mapping[Path, str]  # files that each machine must see

    def start_worker(self) -> Worker:
        """Make the stage's worker in this process, with a thread for each core."""
        torch.set_num_threads(max(1, int(self.stage.cpus)))
        return self.stage.make_worker()


class PoolWorker:
    """A process of a pool. Its worker is made for its first block, so that a failure of that is noted too."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._started: Worker | None = None

    def __call__(self, jobs: pa.Table) -> Iterator[pa.Table]:
        """Yield the result of each job of a block, or an error that ends the run."""
        for result in self._results(from_table(jobs)):
            yield to_table([result])

    def _results(self, values: Sequence[Any]) -> Iterator[Any]:
        jobs = [value for value in values if not isinstance(value, ItemFailure | WalkcutError)]
        yield from (value for value in values if isinstance(value, ItemFailure | WalkcutError))
        try:
            if self._started is None:
                verify_marker(self._pool.markers)
            with self._recorded_attempt("together", *jobs) as deaths:
                if deaths:
                    yield from map(self._run_alone, jobs)
                else:
                    yield from map(self._worker().run, prefetched(self._worker().prefetch, jobs))
        except WalkcutError as error:
            yield error
        except OSError as error:
            yield SettingsError(
                f"attempts cannot be noted ({error}): free disk space; the same command continues from here"
            )

    def _worker(self) -> Worker:
        if self._started is None:
            self._started = self._pool.start_worker()
        return self._started

    def _run_alone(self, job: Any) -> Any:
        """Run a job that may kill its process."""
        with self._recorded_attempt("alone", job) as deaths:
            if deaths < _MAX_ATTEMPTS:
                return self._worker()(job)
        return failure_of(
            job,
            "work",
            f"each process that ran it died, {_MAX_ATTEMPTS} times (perhaps it was killed for lack of memory): run "
            "fewer processes per machine, with more --cpus-per-worker, or scale large images down",
        )

    @contextmanager
    def _recorded_attempt(self, kind: str, *jobs: Any) -> Iterator[int]:
        """Note that these jobs are running; yield how often a process died with them."""
        names = [str(self._pool.index), kind, *(item_of(job).key for job in jobs)]
        note = self._pool.notes_dir / hashlib.sha256(json.dumps(names).encode()).hexdigest()
        with note.open("ab") as file:
            file.write(b".")
            size = file.tell()
        yield size - 1
        note.unlink()


def to_table(values: Iterable[Any]) -> pa.Table:
    """Return values as rows of bytes that Ray Data passes on unchanged."""
    return pa.table({_JOB: pa.array([pickle.dumps(value) for value in values], pa.large_binary())})


def from_table(table: pa.Table) -> list[Any]:
    """Return the values of `to_table`."""
    return [pickle.loads(row) for row in table[_JOB].to_pylist()]  # noqa: S301  # nosec B301 - of this run
