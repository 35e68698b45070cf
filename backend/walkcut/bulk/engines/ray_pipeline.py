"""Jobs through the pools of a Ray cluster with Ray Data, one window after another."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import ray.data

from walkcut.bulk.engines.ray_actors import Pool, PoolWorker, from_table, item_of, to_table
from walkcut.bulk.items import CheckpointEntry, Item, ItemFailure, ItemResult, Job, Outcome
from walkcut.errors import WalkcutError

_MIN_WINDOW = 10_000  # jobs that the driver holds
_WINDOW_PER_PROCESS = 200
_BLOCK = 8  # jobs that go through a stage together


def run_windows(pools: Sequence[Pool], jobs: Iterable[Job]) -> Iterator[Outcome]:
    """Yield one outcome for each job; their keys differ."""
    size = max(_MIN_WINDOW, _WINDOW_PER_PROCESS * _max_processes(pools))
    jobs = iter(jobs)
    while window := list(islice(jobs, size)):
        yield from _dedupe(pools, window)


def _max_processes(pools: Sequence[Pool]) -> int:
    return max(pool.max_processes for pool in pools)


def _dedupe(pools: Sequence[Pool], window: Iterable[Job]) -> Iterator[Outcome]:
    """Yield one outcome for each job, even if Ray runs it several times."""
    pending: dict[str, Item | CheckpointEntry] = {}
    for job in window:
        if isinstance(job, ItemFailure):
            yield job
        else:
            pending[item_of(job).key] = job
    for outcome in _run(pools, list(pending.values())):
        key = outcome.item.key if isinstance(outcome, ItemResult) else outcome.key
        if pending.pop(key, None) is not None:
            yield outcome
    for item in map(item_of, pending.values()):
        yield ItemFailure(
            item.key, item.reference, "work", "Ray returned no result for this image: try again with --retry-failed"
        )


def _run(pools: Sequence[Pool], jobs: Sequence[Item | CheckpointEntry]) -> Iterator[Outcome]:
    """Yield the results of the last pool. Raises those that are errors."""
    if not jobs:
        return
    size = min(_BLOCK, max(1, len(jobs) // (2 * _max_processes(pools))))
    blocks = [to_table(jobs[begin : begin + size]) for begin in range(0, len(jobs), size)]
    with ray.data.DataContext.current(_quiet_context()):
        data: ray.data.Dataset = ray.data.from_arrow(blocks)
    for pool in pools:
        data = _map_stage(data, pool, min(pool.max_processes, len(blocks)))
    for batch in data.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        for outcome in from_table(batch):
            if isinstance(outcome, WalkcutError):
                raise outcome
            yield outcome


def _map_stage(data: ray.data.Dataset, pool: Pool, max_processes: int) -> ray.data.Dataset:
    return data.map_batches(
        PoolWorker,
        fn_constructor_args=(pool,),
        batch_size=1 if pool.stage.gpus else None,  # Ray requires a number with GPUs; None is the block as it is
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(
            min_size=1, max_size=max_processes, initial_size=1 if pool.stage.is_auxiliary else max_processes
        ),
        num_cpus=pool.stage.cpus,
        num_gpus=pool.stage.gpus,
    )


def _quiet_context() -> ray.data.DataContext:
    """Return Ray Data's context without progress bars and messages: walkcut has its own."""
    for handler in logging.getLogger("ray.data").handlers:
        if handler.get_name() == "console":
            handler.setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    return context
