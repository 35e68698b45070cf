"""Where pictures go that are done: into a folder, or into a project of Label Studio."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

from walkcut.bulk.items import Format, Output
from walkcut.bulk.ledger import Done, Ledger
from walkcut.studio import Studio

_BATCH = 20  # predictions of one request, which Label Studio takes or leaves as one


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
