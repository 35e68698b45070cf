"""Engine of many machines: stages of the work as pools of processes, wherever a Ray cluster has room for them.

Ray Data passes the jobs through the pools, one window after another.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain, islice
from pathlib import Path

import ray
import ray.data
from ray.exceptions import NodeDiedError, OutOfMemoryError, RayError, RayTaskError, WorkerCrashedError

from walkcut.bulk import workers
from walkcut.bulk.checkpoint import STAGING
from walkcut.bulk.engines import ray_cluster
from walkcut.bulk.engines.ray_actors import Pool, PoolWorker, Stage, from_table, to_table
from walkcut.bulk.items import Item, ItemFailure, Job, Outcome, failure_of, item_of
from walkcut.bulk.plan import Plan
from walkcut.bulk.workers import ImageSegmenter
from walkcut.errors import SettingsError, WalkcutError

log = logging.getLogger(__name__)

_MIN_WINDOW = 10_000  # jobs that the driver holds
_WINDOW_PER_PROCESS = 200
_BLOCK = 8  # jobs that go through a stage together


def make_ray_engine(
    plan: Plan,
    output_dir: Path,
    make_segmenter: Callable[[], ImageSegmenter],
    device_type: str,
    *,
    cpus: int = 1,
    processes: int | None = None,
) -> Callable[[Iterable[Item | ItemFailure]], Iterator[Outcome]]:
    """Return an engine with a model in each of the cluster's processes, or on each GPU, where others load and export.

    There are `processes` with a model, of `cpus` cores each on the CPU, or as many as fit. See `in_cluster`.
    """
    # Other processes have another working directory.
    plan = replace(plan, tree_dir=None if plan.tree_dir is None else plan.tree_dir.resolve())
    output_dir = output_dir.resolve()
    if device_type == "cpu":
        stages = [Stage(partial(workers.make_full_worker, plan, output_dir, make_segmenter), cpus)]
    else:
        stages = [
            Stage(partial(workers.make_load_worker, plan), cpus=0.5, is_auxiliary=True),
            Stage(partial(workers.make_segment_worker, make_segmenter), cpus=0, gpus=1),
            Stage(partial(workers.make_export_worker, plan, output_dir), cpus=0.5, is_auxiliary=True),
        ]
    return partial(in_cluster, stages, output_dir, tree_dir=plan.tree_dir, processes=processes)


def in_cluster(
    stages: Sequence[Stage],
    output_dir: Path,
    jobs: Iterable[Job],
    *,
    tree_dir: Path | None = None,
    processes: int | None = None,
) -> Iterator[Outcome]:
    """Yield the outcome of each job, in any order, from the cluster at RAY_ADDRESS or one on this machine.

    Jobs have different keys, and the checkpoint in `output_dir` is open. A job whose process dies is run alone, at
    most twice, and then fails. Raises `SettingsError` for machines that have another walkcut, do not see the folders,
    or cannot start a worker, and the errors of the workers.
    """
    jobs = iter(jobs)
    first = next(jobs, None)
    if first is None:
        return
    notes_dir = output_dir / STAGING
    shared_dirs = [notes_dir] if tree_dir is None else [notes_dir, tree_dir]
    with ray_cluster.connected(), ray_cluster.shared_fs_marker(*shared_dirs) as markers:
        try:
            ray_cluster.check_walkcut_versions()
            pools = [
                Pool(index, stage, _max_processes(stage, stages, processes), notes_dir, markers)
                for index, stage in enumerate(stages)
            ]
            log.info("Ray: at most %s processes", " + ".join(str(pool.max_processes) for pool in pools))
            _warm_up(pools)
            jobs = chain([first], jobs)
            size = max(_MIN_WINDOW, *(_WINDOW_PER_PROCESS * pool.max_processes for pool in pools))
            while window := list(islice(jobs, size)):
                yield from _dedupe(pools, window)
        except RayError as error:
            cause = error.cause if isinstance(error, RayTaskError) else error
            raise SettingsError(
                f"Ray failed ({type(cause).__name__}: {cause}): the same command continues from here"
            ) from error


def _max_processes(stage: Stage, stages: Sequence[Stage], processes: int | None) -> int:
    """Return a stage's number of processes: the requested one if it has the model, else as many as fit."""
    if processes is not None and not stage.is_auxiliary:
        return processes
    resources = {"CPU": stage.cpus, "GPU": stage.gpus}
    slots = ray_cluster.available_slots(resources)
    if not slots:
        required = " and ".join(f"{amount:g} {name}" for name, amount in resources.items() if amount)
        raise SettingsError(
            f"no machine of the Ray cluster has {required} for a process: choose fewer --cpus-per-worker or another "
            "WALKCUT_DEVICE, or set --workers for a cluster that grows"
        )
    return max(1, slots // sum(sharing.is_auxiliary == stage.is_auxiliary for sharing in stages))


def _warm_up(pools: Iterable[Pool]) -> None:
    """Start each stage's worker once, so that an error there is raised before images fail."""
    for pool in pools:
        start = ray.remote(num_cpus=pool.stage.cpus, num_gpus=pool.stage.gpus, max_retries=0)(_start_error)
        try:
            error = ray.get(start.remote(pool))
        except (WorkerCrashedError, OutOfMemoryError, NodeDiedError) as death:
            raise SettingsError(
                "a process ended (perhaps it was killed for lack of memory) before it was ready: run fewer processes "
                "per machine, with more --cpus-per-worker"
            ) from death
        if error is not None:
            raise error


def _start_error(pool: Pool) -> WalkcutError | None:
    try:
        ray_cluster.verify_marker(pool.markers)
        pool.start_worker()
    except WalkcutError as error:
        return error
    return None


def _dedupe(pools: Sequence[Pool], window: Iterable[Job]) -> Iterator[Outcome]:
    """Yield one outcome for each job, even if Ray runs it several times."""
    pending: dict[str, Job] = {}
    for job in window:
        if isinstance(job, ItemFailure):
            yield job
        else:
            pending[item_of(job).key] = job
    for outcome in _run(pools, list(pending.values())):
        if pending.pop(item_of(outcome).key, None) is not None:
            yield outcome
    for job in pending.values():
        yield failure_of(job, "work", "Ray returned no result for this image: try again with --retry-failed")


def _run(pools: Sequence[Pool], jobs: Sequence[Job]) -> Iterator[Outcome]:
    """Yield the results of the last pool. Raises those that are errors."""
    if not jobs:
        return
    size = min(_BLOCK, max(1, len(jobs) // (2 * max(pool.max_processes for pool in pools))))
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
