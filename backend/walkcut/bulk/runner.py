"""A bulk run: what is left to do goes through an engine, and what comes of it is kept."""

import json
from collections.abc import Callable, Generator, Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from walkcut.bulk.checkpoint import REPORT, Checkpoint, CheckpointEntry, ItemFailure, Outcome
from walkcut.bulk.items import Item
from walkcut.bulk.progress import Observer, RunStats, notify
from walkcut.bulk.sinks import Sink
from walkcut.bulk.steps import Plan
from walkcut.storage import TreeCache, atomic_file

Job = TypeVar("Job", bound=Item | CheckpointEntry | ItemFailure)
Engine = Callable[[Iterable[Job]], Iterator[Outcome]]


def fingerprint(plan: Plan, label_config: str = "") -> dict[str, Any]:
    """All that changes what comes of an image."""
    return {
        "walkcut": version("walkcut"),
        "segmenter": plan.segmenter,
        "method": plan.method,
        "granularities": [str(granularity) for granularity in plan.granularities],
        "options": str(plan.project.options),
        "learned": plan.project.profile.digest,
        "labels": ", ".join(map(str, plan.project.controls)),
        "format": plan.form.name,
        "format settings": str(plan.form),
        "trees": plan.trees is not None,
        "label config": label_config,
    }


def run(
    jobs: Iterable[Job],
    engine: Engine[Job],
    checkpoint: Checkpoint,
    sink: Sink,
    trees: TreeCache | None = None,
    observers: Iterable[Observer] = (),
) -> RunStats:
    """Bring all jobs that the sink does not know through the engine.

    When it is interrupted, what is finished is kept.
    """
    stats = RunStats()
    outcomes = engine(job for job in jobs if not sink.is_done(_key(job)))
    try:
        for outcome in notify(outcomes, (stats, *observers)):
            if isinstance(outcome, ItemFailure):
                checkpoint.fail(outcome)
                continue
            if trees is not None and outcome.tree_bytes:
                trees.register(outcome.tree, outcome.tree_bytes)
            sink.save(outcome)
    except KeyboardInterrupt:
        sink.flush()
        raise
    finally:
        if isinstance(outcomes, Generator):
            outcomes.close()  # and with it the processes at work
    sink.finalise()
    return stats


def write_report(out: Path, checkpoint: Checkpoint, stats: RunStats) -> dict[str, Any]:
    """`report.json`: what this run came to, and all runs together."""
    report = {**stats.report(), "images_in_all": checkpoint.done, "failed_in_all": checkpoint.failed}
    with atomic_file(out / REPORT) as write:
        write(json.dumps(report, indent=2).encode() + b"\n")
    return report


def _key(job: Item | CheckpointEntry | ItemFailure) -> str:
    return job.item.key if isinstance(job, CheckpointEntry) else job.key
