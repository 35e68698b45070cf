"""What the processes of a Ray cluster do: a stage of the work, for blocks of a few images.

Ray does a block again whose process dies, as often as it takes, and does not say so. Hence notes in the run's folder of
what is at work: a block that was begun before is done image by image, and an image that was begun by itself twice
is a failure.
"""

import hashlib
import pickle  # noqa: TID251  # nosec B403 - between processes of one run
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from walkcut.bulk.checkpoint import CheckpointEntry, ItemFailure
from walkcut.bulk.engines.local import READERS, Worker, prefetched
from walkcut.bulk.engines.ray_cluster import verify_marker
from walkcut.bulk.items import Item
from walkcut.bulk.steps import LoadedImage, SegmentedImage
from walkcut.errors import SettingsError, WalkcutError

_ATTEMPTS = 2  # at an image by itself
_JOB = "job"


@dataclass(frozen=True)
class Stage:
    """A part of the work, and what each process takes that does it: cores, maybe a share of one, and GPUs.

    The stage with the model does not `help` another.
    """

    make: Callable[[], Worker]
    cpus: float = 1
    gpus: int = 0
    is_auxiliary: bool = False


@dataclass(frozen=True)
class Pool:
    """A stage, by its `number`, in so many processes at most, which take notes in a folder that bears `marks`."""

    number: int
    stage: Stage
    most: int
    notes: Path
    marks: Mapping[Path, str]

    def begin(self) -> Worker:
        """Make the work, in one of the processes."""
        torch.set_num_threads(max(1, int(self.stage.cpus)))
        return self.stage.make()


class PoolWorker:
    """A process of a pool. It begins with its first block, so that no process is begun for ever."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._begun: Worker | None = None

    def __call__(self, jobs: pa.Table) -> Iterator[pa.Table]:
        """What a block's jobs come to, one by one, or an error that is to end the run."""
        for result in self._results(from_table(jobs)):
            yield to_table([result])

    def _results(self, jobs: Sequence[Any]) -> Iterator[Any]:
        passed = [job for job in jobs if isinstance(job, ItemFailure | WalkcutError)]
        own = [job for job in jobs if not isinstance(job, ItemFailure | WalkcutError)]
        yield from passed
        try:
            if self._begun is None:
                verify_marker(self._pool.marks)
            with self._noted("together", *own) as earlier:
                yield from map(self._alone, own) if earlier else self._together(own)
        except WalkcutError as error:
            yield error
        except OSError as error:
            yield SettingsError(f"notes cannot be taken ({error}): see that there is room; the same command goes on")

    def _work(self) -> Worker:
        if self._begun is None:
            self._begun = self._pool.begin()
        return self._begun

    def _together(self, jobs: Sequence[Any]) -> Iterator[Any]:
        """Jobs one after another, with those to come being prepared."""
        with ThreadPoolExecutor(READERS) as readers:
            yield from map(self._work().run, prefetched(readers, self._work().prefetch, jobs))

    def _alone(self, job: Any) -> Any:
        """A job whose process may die of it."""
        with self._noted("alone", job) as earlier:
            if earlier < _ATTEMPTS:
                return self._work().run(self._work().prefetch(job))
        item = item_of(job)
        return ItemFailure(
            item.key,
            item.reference,
            "work",
            f"each process at work on it ended, {_ATTEMPTS} times (maybe it was killed for lack of memory): have fewer "
            "processes on a machine, with more --cpus-per-worker, or scale large images down",
        )

    @contextmanager
    def _noted(self, how: str, *jobs: Any) -> Iterator[int]:
        """How often a process has died in this context with these jobs."""
        names = [str(self._pool.number), how, *(item_of(job).key for job in jobs)]
        note = self._pool.notes / hashlib.sha256("\n".join(names).encode()).hexdigest()
        with note.open("ab") as file:
            file.write(b".")
            size = file.tell()
        yield size - 1
        note.unlink()


def to_table(values: Iterable[Any]) -> pa.Table:
    """Values as rows that Ray Data passes on without a look at them."""
    return pa.table({_JOB: pa.array([pickle.dumps(value) for value in values], pa.large_binary())})


def from_table(table: pa.Table) -> list[Any]:
    """The values that `to_table` was given."""
    return [pickle.loads(row) for row in table[_JOB].to_pylist()]  # noqa: S301  # nosec B301 - of this run


def item_of(job: Item | CheckpointEntry | LoadedImage | SegmentedImage) -> Item:
    """The image that a job is about, at whatever stage it is."""
    return job if isinstance(job, Item) else job.item
