"""Cached profiles of projects, fitted again when their feedback changes."""

import threading
import time
from collections.abc import Collection
from dataclasses import dataclass

from walkcut.learning.feedback import AnnotationFeedback
from walkcut.learning.profile import ProjectProfile, fit_profile
from walkcut.storage import ProjectStore

_FAST_S = 0.1  # a longer fit is repeated at most every _REFIT_FACTOR times its duration
_REFIT_FACTOR = 10


@dataclass(frozen=True)
class _CachedProfile:
    """A profile, the labels and the store's revision that it is for, and when it may be fitted again."""

    labels: Collection[str]
    revision: object
    profile: ProjectProfile
    next_fit: float


class ProfileCache:
    """The profile of each project, for one version of the segmenter; safe to share between threads.

    Fitting thousands of annotations takes a while: one thread at a time fits, at most every 10 times the duration of
    the last fit, and the others use the previous profile.
    """

    def __init__(self, store: ProjectStore, segmenter_version: str) -> None:
        self._store, self._segmenter_version = store, segmenter_version
        self._profiles: dict[str, _CachedProfile] = {}
        self._fitting = threading.Lock()

    def get(self, project_id: str, labels: Collection[str]) -> ProjectProfile:
        """Return a project's profile for the labels that it still has. Raises `StoreError`."""
        revision, cached = self._store.revision(project_id), self._profiles.get(project_id)
        if cached is not None and cached.labels == labels:
            must_wait = self._fitting.locked() or time.monotonic() < cached.next_fit
            if cached.revision == revision or must_wait:
                return cached.profile
        with self._fitting:
            cached = self._profiles.get(project_id)
            if cached is None or (cached.labels, cached.revision) != (labels, revision):
                cached = self._profiles[project_id] = self._fit(project_id, labels, revision)
        return cached.profile

    def _fit(self, project_id: str, labels: Collection[str], revision: object) -> _CachedProfile:
        begin = time.monotonic()
        feedback = map(AnnotationFeedback.from_json, self._store.feedback(project_id))
        profile = fit_profile(feedback, self._segmenter_version, labels)
        seconds = time.monotonic() - begin
        return _CachedProfile(labels, revision, profile, begin + (_REFIT_FACTOR * seconds if seconds > _FAST_S else 0))
