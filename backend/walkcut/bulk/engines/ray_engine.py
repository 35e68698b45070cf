"""Engine of many machines: stages of the work as pools of processes, wherever a Ray cluster has room for them."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path

import ray
from ray.exceptions import NodeDiedError, OutOfMemoryError, RayError, RayTaskError, WorkerCrashedError

from walkcut.bulk.engines.ray_actors import Pool, Stage
from walkcut.bulk.engines.ray_cluster import (
    available_slots,
    check_walkcut_versions,
    connected,
    shared_fs_marker,
    verify_marker,
)
from walkcut.bulk.engines.ray_pipeline import run_windows
from walkcut.bulk.items import Item, ItemFailure, Job, Outcome
from walkcut.bulk.plan import Plan
from walkcut.bulk.run_folder import STAGING
from walkcut.bulk.steps import ImageSegmenter
from walkcut.bulk.workers import make_export_worker, make_full_worker, make_load_worker, make_segment_worker
from walkcut.errors import SettingsError, WalkcutError

log = logging.getLogger(__name__)


def model_per_process(
    plan: Plan,
    output_dir: Path,
    make_segmenter: Callable[[], ImageSegmenter],
    items: Iterable[Item | ItemFailure],
    *,
    cpus: int = 1,
    processes: int | None = None,
) -> Iterator[Outcome]:
    """Process each image in one of the cluster's processes, with `cpus` cores and a model each: for the CPU.

    There are `processes`, or as many as fit. See `in_cluster`.
    """
    plan, output_dir = _absolute(plan, output_dir)
    stages = [Stage(partial(make_full_worker, plan, output_dir, make_segmenter), cpus)]
    return in_cluster(stages, output_dir, items, tree_dir=plan.tree_dir, processes=processes)


def model_per_gpu(
    plan: Plan,
    output_dir: Path,
    make_segmenter: Callable[[], ImageSegmenter],
    items: Iterable[Item | ItemFailure],
    *,
    processes: int | None = None,
) -> Iterator[Outcome]:
    """Process each image with a model on one of the cluster's GPUs; other processes load and export.

    There are `processes` with a model, or one for each GPU. See `in_cluster`.
    """
    plan, output_dir = _absolute(plan, output_dir)
    stages = [
        Stage(partial(make_load_worker, plan), cpus=0.5, is_auxiliary=True),
        Stage(partial(make_segment_worker, make_segmenter), cpus=0, gpus=1),
        Stage(partial(make_export_worker, plan, output_dir), cpus=0.5, is_auxiliary=True),
    ]
    return in_cluster(stages, output_dir, items, tree_dir=plan.tree_dir, processes=processes)


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
    with connected(), shared_fs_marker(notes_dir, *([] if tree_dir is None else [tree_dir])) as markers:
        try:
            check_walkcut_versions()
            pools = [
                Pool(index, stage, _max_processes(stage, stages, processes), notes_dir, markers)
                for index, stage in enumerate(stages)
            ]
            log.info("Ray: at most %s processes", " + ".join(str(pool.max_processes) for pool in pools))
            _warm_up(pools)
            yield from run_windows(pools, chain([first], jobs))
        except RayError as error:
            cause = error.cause if isinstance(error, RayTaskError) else error
            raise SettingsError(
                f"Ray failed ({type(cause).__name__}: {cause}): the same command continues from here"
            ) from error


def _absolute(plan: Plan, output_dir: Path) -> tuple[Plan, Path]:
    """Return the plan and the folder with absolute paths, for processes with another working directory."""
    return replace(plan, tree_dir=None if plan.tree_dir is None else plan.tree_dir.resolve()), output_dir.resolve()


def _max_processes(stage: Stage, stages: Sequence[Stage], processes: int | None) -> int:
    """Return a stage's number of processes: the requested one if it has the model, else as many as fit."""
    if processes is not None and not stage.is_auxiliary:
        return processes
    resources = {"CPU": stage.cpus, "GPU": stage.gpus}
    slots = available_slots(resources)
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
        verify_marker(pool.markers)
        pool.start_worker()
    except WalkcutError as error:
        return error
    return None
