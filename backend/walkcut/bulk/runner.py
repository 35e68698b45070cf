"""Bulk runs: pending images go through an engine into a sink."""

import json
import signal
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from walkcut.bulk.checkpoint import REPORT, Checkpoint, open_checkpoint
from walkcut.bulk.items import Item, ItemFailure, Job, Outcome, Skipped, item_of
from walkcut.bulk.plan import Plan
from walkcut.bulk.progress import OutcomeObserver, RunStats, progress_bar, serve_metrics
from walkcut.bulk.sinks import Sink
from walkcut.storage import TreeCache, atomic_file

CHANGED = "finished, but changed since: --changed processes it again"

RunJob = TypeVar("RunJob", bound=Job)
Engine = Callable[[Iterable[RunJob]], Iterator[Outcome]]


class RunInterrupted(KeyboardInterrupt):
    """A run was interrupted, with `done` images finished and kept."""

    def __init__(self, done: int) -> None:
        super().__init__()
        self.done = done


@dataclass(frozen=True)
class BulkRun:
    """A plan, the engine that carries it out, and the folder of its checkpoint."""

    plan: Plan
    engine: Engine[Any]
    output_dir: Path
    label_config: str = ""  # XML that the plan was made for
    tree_cache: TreeCache | None = None  # in which new trees are registered
    metrics_address: tuple[str, int] | None = None  # host and port for Prometheus
    restart: bool = False  # delete the run in the folder first
    retry_failed: bool = False
    relisted: Callable[[], Iterable[Item]] | None = None  # lists the images once more, to process changed ones again
    addresses: str = ""  # how Label Studio finds the images

    def execute(
        self,
        jobs: Iterable[Any],
        total: Callable[[], int] | None = None,
        make_sink: Callable[[Checkpoint], Sink] | None = None,
    ) -> dict[str, Any]:
        """Process the jobs and return the report; `total` counts them, `make_sink` replaces the sink into files.

        Raises `RunInterrupted` on SIGINT and SIGTERM, and `SettingsError` as `open_checkpoint`.
        """
        with ExitStack() as stack:
            on_sigterm = signal.signal(signal.SIGTERM, signal.default_int_handler)  # as on Ctrl-C
            stack.callback(signal.signal, signal.SIGTERM, on_sigterm)
            settings = run_settings(self.plan, self.label_config, self.addresses)
            options = {"restart": self.restart, "retry_failed": self.retry_failed}
            checkpoint = stack.enter_context(
                open_checkpoint(self.output_dir, settings, relisted=self.relisted, **options)
            )
            sink = Sink(checkpoint, self.plan.output_format) if make_sink is None else make_sink(checkpoint)
            stats, before = RunStats(), checkpoint.done + checkpoint.failed
            bar = stack.enter_context(progress_bar(stats, total, already_done=before))
            observers: list[OutcomeObserver] = [stats, bar]
            if self.metrics_address is not None:
                observers.append(stack.enter_context(serve_metrics(*self.metrics_address)))
            try:
                run(jobs, self.engine, checkpoint, sink, self.tree_cache, observers)
                return write_report(self.output_dir, checkpoint, stats)
            except KeyboardInterrupt as error:
                raise RunInterrupted(checkpoint.done) from error


def run_settings(plan: Plan, label_config: str = "", addresses: str = "") -> dict[str, Any]:
    """Return all settings that change the result for an image, as JSON."""
    return {
        "walkcut": version("walkcut"),
        "segmenter": plan.segmenter_version,
        "method": plan.preset_name,
        "granularities": [str(granularity) for granularity in plan.granularities],
        "options": str(plan.project.options),
        "learned": plan.project.profile.digest,
        "labels": ", ".join(map(str, plan.project.image_tags)),
        "format": plan.output_format.name,
        "format settings": str(plan.output_format),
        "path root": plan.path_root,
        "trees": plan.tree_dir is not None,
        "label config": label_config,
        "addresses": addresses,
    }


def run(
    jobs: Iterable[Job | Skipped],
    engine: Engine[Any],
    checkpoint: Checkpoint,
    sink: Sink,
    tree_cache: TreeCache | None = None,
    observers: Sequence[OutcomeObserver] = (),
) -> None:
    """Pass the jobs that the sink has not seen through the engine; an interrupt keeps the finished images."""
    sink.recover()
    outcomes = engine(_pending(jobs, checkpoint, sink))
    try:
        for outcome in outcomes:
            if isinstance(outcome, ItemFailure):
                checkpoint.fail(outcome)
                sink.note_failure(outcome)
            else:
                if tree_cache is not None and outcome.tree_bytes:
                    tree_cache.register(outcome.tree_bytes)
                sink.save(outcome)
            for observe in observers:
                observe(outcome)
    except KeyboardInterrupt:
        sink.flush()
        raise
    finally:
        if isinstance(outcomes, Generator):
            outcomes.close()  # ends the worker processes
    sink.finalise()


def _pending(jobs: Iterable[Job | Skipped], checkpoint: Checkpoint, sink: Sink) -> Iterator[Job]:
    """Yield the jobs that the sink has not seen; count what is skipped, and finished images that have changed."""
    for job in jobs:
        if isinstance(job, Skipped):
            checkpoint.skip(job)
        elif not sink.is_done(item_of(job).key):
            yield job
        elif isinstance(job, Item) and checkpoint.has_changed(job):
            checkpoint.skip(Skipped(job.reference, CHANGED))


def write_report(output_dir: Path, checkpoint: Checkpoint, stats: RunStats) -> dict[str, Any]:
    """Write `report.json` and return it: the totals of this run, and of all runs in the folder."""
    totals = {"images_in_total": checkpoint.done, "failed_in_total": checkpoint.failed}
    reasons = {reason: asdict(counted) for reason, counted in checkpoint.skipped.items()}
    skipped = {"skipped": sum(counted.count for counted in checkpoint.skipped.values()), "skipped_by_reason": reasons}
    report = {**stats.report(), **totals, **skipped}
    with atomic_file(output_dir / REPORT) as write:
        write(json.dumps(report, indent=2).encode() + b"\n")
    return report
