"""A bulk run: what is left to do goes through an engine, and what comes of it is kept."""

import json
from collections.abc import Callable, Generator, Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from walkcut.bulk.checkpoint import REPORT, Entry, Failure, Ledger, Outcome
from walkcut.bulk.items import Item
from walkcut.bulk.progress import Tally, Watcher, watched
from walkcut.bulk.sinks import Sink
from walkcut.bulk.steps import Plan
from walkcut.storage import TreeCache, atomic_file

Job = TypeVar("Job", bound=Item | Entry | Failure)
Engine = Callable[[Iterable[Job]], Iterator[Outcome]]


def fingerprint(plan: Plan, label_config: str = "") -> dict[str, Any]:
    """All that changes what comes of a picture."""
    return {
        "walkcut": version("walkcut"),
        "segmenter": plan.segmenter,
        "method": plan.method,
        "granularities": [str(granularity) for granularity in plan.granularities],
        "options": str(plan.project.options),
        "learned": plan.project.learned.digest,
        "labels": ", ".join(map(str, plan.project.targets)),
        "format": plan.form.name,
        "format settings": str(plan.form),
        "trees": plan.trees is not None,
        "label config": label_config,
    }


def carry_out(
    jobs: Iterable[Job],
    engine: Engine[Job],
    ledger: Ledger,
    sink: Sink,
    trees: TreeCache | None = None,
    watchers: Iterable[Watcher] = (),
) -> Tally:
    """Bring all jobs that the sink does not know through the engine.

    When it is interrupted, what is finished is kept.
    """
    tally = Tally()
    outcomes = engine(job for job in jobs if not sink.is_settled(_key(job)))
    try:
        for outcome in watched(outcomes, (tally, *watchers)):
            if isinstance(outcome, Failure):
                ledger.fail(outcome)
                continue
            if trees is not None and outcome.tree_bytes:
                trees.adopt(outcome.tree, outcome.tree_bytes)
            sink.keep(outcome)
    except KeyboardInterrupt:
        sink.flush()
        raise
    finally:
        if isinstance(outcomes, Generator):
            outcomes.close()  # and with it the processes at work
    sink.complete()
    return tally


def write_report(out: Path, ledger: Ledger, tally: Tally) -> dict[str, Any]:
    """`report.json`: what this run came to, and all runs together."""
    report = {**tally.report(), "images_in_all": ledger.done, "failed_in_all": ledger.failed}
    with atomic_file(out / REPORT) as write:
        write(json.dumps(report, indent=2).encode() + b"\n")
    return report


def _key(job: Item | Entry | Failure) -> str:
    return job.item.key if isinstance(job, Entry) else job.key
