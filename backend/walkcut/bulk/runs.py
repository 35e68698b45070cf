"""A bulk run: what is left to do goes through an engine, and what comes of it is kept."""

import json
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

from walkcut.bulk.items import Format, Item, Output
from walkcut.bulk.ledger import REPORT, Done, Entry, Failure, Ledger, Outcome
from walkcut.bulk.progress import Tally, Watcher, watched
from walkcut.bulk.work import Plan
from walkcut.store import TreeCache, atomic_file
from walkcut.studio import Studio

Job = TypeVar("Job", bound=Item | Entry | Failure)
Engine = Callable[[Iterable[Job]], Iterator[Outcome]]

_BATCH = 20  # predictions of one request, which Label Studio takes or leaves as one


def fingerprint(plan: Plan, label_config: str = "") -> dict[str, Any]:
    """All that changes what comes of a picture."""
    (target,) = plan.project.targets
    return {
        "walkcut": version("walkcut"),
        "segmenter": plan.segmenter,
        "method": plan.method,
        "granularities": [str(granularity) for granularity in plan.granularities],
        "options": str(plan.project.options),
        "learned": plan.project.learned.digest,
        "labels": str(target),
        "format": plan.form.name,
        "format settings": str(plan.form),
        "trees": plan.trees is not None,
        "label config": label_config,
    }


@runtime_checkable
class Sink(Protocol):
    """Where pictures go that are done."""

    def keep(self, done: Done) -> None:
        """Keep one, now or with others."""
        ...

    def flush(self) -> None:
        """Keep those that wait for others."""
        ...

    def complete(self) -> None:
        """All are done."""
        ...


class FolderSink:
    """Keeps files and records in the ledger's folder, and writes there what holds all pictures of the format."""

    def __init__(self, ledger: Ledger, form: Format) -> None:
        self._ledger, self._form = ledger, form

    def keep(self, done: Done) -> None:
        """At once."""
        self._ledger.keep(done)

    def flush(self) -> None:
        """None waits."""

    def complete(self) -> None:
        """Write what holds all pictures."""
        self._ledger.assemble(self._form)


class StudioSink:
    """Puts predictions into a project of Label Studio, all of a task in one request, and takes note of it afterwards.

    Of the `versions` those are left out that a task has already.
    """

    def __init__(self, ledger: Ledger, studio: Studio, project: str, versions: Iterable[str]) -> None:
        self._ledger, self._studio, self._project, self._versions = ledger, studio, project, frozenset(versions)
        self._present: dict[int, frozenset[str]] = {}
        self._waiting: list[Done] = []
        self._predictions: list[Mapping[str, Any]] = []

    def tasks(self) -> Iterator[tuple[Mapping[str, Any], frozenset[str]]]:
        """The project's tasks that nobody has annotated, each with its predictions' versions."""
        for task, versions in self._studio.unannotated(self._project):
            if present := versions & self._versions:
                self._present[task["id"]] = present
            yield task, versions

    def keep(self, done: Done) -> None:
        """With others, as many as one request takes."""
        present = self._present.pop(done.item.task or 0, frozenset())
        new = [each for each in done.output.record["predictions"] if each["model_version"] not in present]
        if len(self._predictions) + len(new) > _BATCH:
            self.flush()
        self._predictions += [{"task": done.item.task, **each} for each in new]
        versions = [each["model_version"] for each in new]
        record = {"task": done.item.task, "model_versions": versions}
        self._waiting.append(Done(done.item, Output({}, record), done.tree, None, done.seconds))

    def flush(self) -> None:
        """Send the predictions that wait, and take note of their tasks."""
        predictions, self._predictions = self._predictions, []
        waiting, self._waiting = self._waiting, []
        self._studio.add_predictions(self._project, predictions)
        for done in waiting:
            self._ledger.keep(done)

    def complete(self) -> None:
        """Send the last ones."""
        self.flush()


def carry_out(
    jobs: Iterable[Job],
    engine: Engine[Job],
    ledger: Ledger,
    sink: Sink,
    trees: TreeCache | None = None,
    watchers: Iterable[Watcher] = (),
) -> Tally:
    """Bring all jobs that the ledger does not know through the engine.

    When it is interrupted, what is finished is kept.
    """
    tally = Tally()
    outcomes = engine(job for job in jobs if not ledger.is_settled(_key(job)))
    try:
        for outcome in watched(outcomes, (tally, *watchers)):
            if isinstance(outcome, Failure):
                ledger.fail(outcome)
                continue
            if trees is not None and outcome.tree_file is not None:
                trees.put_bytes(outcome.tree, outcome.tree_file)
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
