"""What projects know by their lessons, worked out anew when these change."""

import threading
import time
from collections.abc import Collection
from dataclasses import dataclass

from walkcut.learning.examples import ProjectProfile, fit_profile
from walkcut.storage import ProjectStore

_QUICK_S, _REST = 0.1, 10  # to work out what lessons come to; what takes longer rests so many times as long


@dataclass(frozen=True)
class _Known:
    """What lessons came to for these labels, and when that may be worked out again at the earliest."""

    labels: Collection[str]
    revision: object
    learned: ProjectProfile
    again: float


class ProfileCache:
    """What each project's lessons come to, as lessons of a segmenter's version. Safe to share between threads.

    Of thousands of lessons that takes a while: one thread works it out at a time, and not all the time; until it has,
    others go on with what was known.
    """

    def __init__(self, store: ProjectStore, segmenter: str) -> None:
        self._store, self._segmenter = store, segmenter
        self._known: dict[str, _Known] = {}
        self._learning_anew = threading.Lock()

    def of(self, project: str, labels: Collection[str]) -> ProjectProfile:
        """What a project has learned, for the labels that it still has. Raises `StoreError`."""
        revision, known = self._store.revision(project), self._known.get(project)
        if known is not None and known.labels == labels:
            rests = self._learning_anew.locked() or time.monotonic() < known.again
            if known.revision == revision or rests:
                return known.learned
        with self._learning_anew:
            known = self._known.get(project)
            if known is None or (known.labels, known.revision) != (labels, revision):
                known = self._known[project] = self._learn(project, labels, revision)
        return known.learned

    def _learn(self, project: str, labels: Collection[str], revision: object) -> _Known:
        begin = time.monotonic()
        learned = fit_profile(self._store.feedback(project), self._segmenter, labels)
        took = time.monotonic() - begin
        return _Known(labels, revision, learned, begin + (_REST * took if took > _QUICK_S else 0))
