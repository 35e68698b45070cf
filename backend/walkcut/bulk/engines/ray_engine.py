"""The engine of many machines: images through Ray Data, a window of them at a time.

Each stage of the work is a pool of processes, wherever the cluster has room for them; blocks of a few images go
through them in any order.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import ray
import ray.data
from ray.exceptions import NodeDiedError, OutOfMemoryError, RayError, RayTaskError, WorkerCrashedError

from walkcut.bulk.checkpoint import CheckpointEntry, ItemFailure, ItemResult, Outcome, parts_folder
from walkcut.bulk.engines.ray_actors import Pool, PoolWorker, Stage, from_table, item_of, to_table
from walkcut.bulk.engines.ray_cluster import available_slots, check_versions, connected, shared_fs_marker, verify_marker
from walkcut.bulk.items import Item
from walkcut.bulk.steps import (
    LoadedImage,
    LoadStep,
    Plan,
    SegmentedImage,
    SegmentStep,
    make_export_worker,
    make_full_worker,
)
from walkcut.errors import SettingsError, WalkcutError
from walkcut.segmentation.segmenter import Segmenter

log = logging.getLogger(__name__)

_WINDOW = 10_000  # images that the driver holds, at least
_WINDOW_PER_PROCESS = 200
_BLOCK = 8  # images that go through a stage together


@dataclass(frozen=True)
class _Step:
    """One of several parts of the work on an image."""

    prefetch: Callable[[Any], Any]
    run: Callable[[Any], Any]


def model_per_process(
    plan: Plan,
    out: Path,
    load: Callable[[], Segmenter],
    items: Iterable[Item | ItemFailure],
    *,
    cpus: int = 1,
    processes: int | None = None,
) -> Iterator[Outcome]:
    """Each image in one of the cluster's processes, which have so many cores and a model of their own: for the CPU.

    There are `processes`, or as many as there is room for. See `in_cluster`.
    """
    plan, out = _absolute(plan, out)
    stages = [Stage(partial(make_full_worker, plan, out, load), cpus)]
    return in_cluster(stages, out, items, trees=plan.trees, processes=processes)


def model_per_gpu(
    plan: Plan,
    out: Path,
    load: Callable[[], Segmenter],
    items: Iterable[Item | ItemFailure],
    *,
    processes: int | None = None,
) -> Iterator[Outcome]:
    """Each image through a model on one of the cluster's GPUs; others read before it, and finish after it.

    There are as many `processes` with a model, or one for each GPU. See `in_cluster`.
    """
    plan, out = _absolute(plan, out)
    stages = [
        Stage(partial(_make_reader, plan), cpus=0.5, is_auxiliary=True),
        Stage(partial(_make_grower, load), cpus=0, gpus=1),
        Stage(partial(make_export_worker, plan, out), cpus=0.5, is_auxiliary=True),
    ]
    return in_cluster(stages, out, items, trees=plan.trees, processes=processes)


def in_cluster(
    stages: Sequence[Stage],
    out: Path,
    jobs: Iterable[Item | CheckpointEntry | ItemFailure],
    *,
    trees: Path | None = None,
    processes: int | None = None,
) -> Iterator[Outcome]:
    """What the stages make of jobs of different keys, in any order, in the cluster that RAY_ADDRESS names or here.

    The ledger of the run in `out` is open. A job whose process dies is tried by itself, once and again, and then fails.
    Raises `SettingsError` for machines that have another walkcut, do not see `out` or `trees`, or cannot begin, and
    what stages raise.
    """
    coming = iter(jobs)
    first = list(islice(coming, 1))
    if not first:
        return
    notes = parts_folder(out)
    with connected(), shared_fs_marker(notes, *([] if trees is None else [trees])) as marks:
        try:
            check_versions()
            pools = [
                Pool(number, stage, _most(stage, stages, processes), notes, marks)
                for number, stage in enumerate(stages)
            ]
            log.info("Ray: at most %s processes", " + ".join(str(pool.most) for pool in pools))
            _warm_up(pools)
            size = max(_WINDOW, _WINDOW_PER_PROCESS * max(pool.most for pool in pools))
            for window in _windows(chain(first, coming), size):
                yield from _dedupe(pools, window)
        except RayError as error:
            cause = error.cause if isinstance(error, RayTaskError) else error
            raise SettingsError(
                f"Ray gave up ({type(cause).__name__}: {cause}): the same command goes on from here"
            ) from error


def _absolute(plan: Plan, out: Path) -> tuple[Plan, Path]:
    """The same folders, for processes that are in another one than this."""
    return replace(plan, trees=None if plan.trees is None else plan.trees.resolve()), out.resolve()


def _make_reader(plan: Plan) -> _Step:
    return _Step(LoadStep(plan), _same)


def _make_grower(load: Callable[[], Segmenter]) -> _Step:
    growing = SegmentStep(load())

    def grow(image: LoadedImage | ItemFailure) -> SegmentedImage | ItemFailure:
        grown = growing(image)
        return grown if isinstance(grown, ItemFailure) else grown.packed()

    return _Step(_same, grow)


def _same(value: Any) -> Any:
    return value


def _most(stage: Stage, stages: Sequence[Stage], processes: int | None) -> int:
    """How many processes a stage gets: as many as wished if it has the model, else as there is room for."""
    if processes is not None and not stage.is_auxiliary:
        return processes
    wanted = {"CPU": stage.cpus, "GPU": stage.gpus}
    there = available_slots(wanted)
    if not there:
        takes = " and ".join(f"{amount:g} {name}" for name, amount in wanted.items() if amount)
        raise SettingsError(
            f"no machine of the Ray cluster has {takes} for a process: choose fewer --cpus-per-worker or another "
            "WALKCUT_DEVICE, or say how many --workers a cluster is to have that grows"
        )
    return max(1, there // sum(other.is_auxiliary == stage.is_auxiliary for other in stages))


def _warm_up(pools: Iterable[Pool]) -> None:
    """Begin each stage once, so that what cannot begin is named before images fail of it."""
    for pool in pools:
        begin = ray.remote(num_cpus=pool.stage.cpus, num_gpus=pool.stage.gpus, max_retries=0)(_error_at_begin)
        try:
            error = ray.get(begin.remote(pool))
        except (WorkerCrashedError, OutOfMemoryError, NodeDiedError) as death:
            raise SettingsError(
                "a process ended (maybe it was killed for lack of memory) before it could begin: have fewer of them on "
                "a machine, with more --cpus-per-worker"
            ) from death
        if error is not None:
            raise error


def _error_at_begin(pool: Pool) -> WalkcutError | None:
    try:
        verify_marker(pool.marks)
        pool.begin()
    except WalkcutError as error:
        return error
    return None


def _windows(
    jobs: Iterator[Item | CheckpointEntry | ItemFailure], size: int
) -> Iterator[list[Item | CheckpointEntry | ItemFailure]]:
    while window := list(islice(jobs, size)):
        yield window


def _dedupe(pools: Sequence[Pool], window: Iterable[Item | CheckpointEntry | ItemFailure]) -> Iterator[Outcome]:
    """One outcome for each job, though Ray do it several times."""
    waiting: dict[str, Item | CheckpointEntry] = {}
    for job in window:
        if isinstance(job, ItemFailure):
            yield job
        else:
            waiting[item_of(job).key] = job
    for outcome in _through(pools, list(waiting.values())):
        key = outcome.item.key if isinstance(outcome, ItemResult) else outcome.key
        if waiting.pop(key, None) is not None:
            yield outcome
    for item in map(item_of, waiting.values()):
        yield ItemFailure(item.key, item.reference, "work", "Ray lost it on the way: try it again with --retry-failed")


def _through(pools: Sequence[Pool], jobs: Sequence[Item | CheckpointEntry]) -> Iterator[Outcome]:
    """What comes out of the last stage. Raises what that is to end the run."""
    if not jobs:
        return
    size = min(_BLOCK, max(1, len(jobs) // (2 * max(pool.most for pool in pools))))
    blocks = [to_table(jobs[begin : begin + size]) for begin in range(0, len(jobs), size)]
    with ray.data.DataContext.current(_quiet_context()):
        data: ray.data.Dataset = ray.data.from_arrow(blocks)
    for pool in pools:
        most = min(pool.most, len(blocks))
        data = data.map_batches(
            PoolWorker,
            fn_constructor_args=(pool,),
            batch_size=1 if pool.stage.gpus else None,  # a number is a must with GPUs; None is the block as it is
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(
                min_size=1, max_size=most, initial_size=1 if pool.stage.is_auxiliary else most
            ),
            num_cpus=pool.stage.cpus,
            num_gpus=pool.stage.gpus,
        )
    for batch in data.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        for outcome in from_table(batch):
            if isinstance(outcome, WalkcutError):
                raise outcome
            yield outcome


def _quiet_context() -> ray.data.DataContext:
    """Ray Data without progress bars and messages: walkcut has its own."""
    for handler in logging.getLogger("ray.data").handlers:
        if handler.get_name() == "console":
            handler.setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    return context
