"""Projects with their learned profiles, cached, so that predictions go on while the database is unavailable."""

import logging
import threading
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from walkcut.errors import StoreError
from walkcut.inference.predictor import Predictor
from walkcut.inference.project import Project
from walkcut.labelstudio.config import semantic_labels, unused_controls
from walkcut.learning.feedback import AnnotationFeedback
from walkcut.learning.profile import ProjectProfile, fit_profile
from walkcut.serving.bounded_calls import BoundedCalls
from walkcut.storage import ProjectStore

log = logging.getLogger(__name__)

_FAST_S = 0.1  # a longer fit is repeated at most every _REFIT_FACTOR times its duration
_REFIT_FACTOR = 10
_CALL_S = 1.0  # that the database may take to answer: Label Studio waits 3 s at set-up
_FIRST_CALL_S = 10.0  # about a project that nothing is known of


@dataclass(frozen=True)
class _Known:
    """The extra parameters of a project's last set-up, and whether it learns."""

    extra_params: Mapping[str, Any] = field(default_factory=dict)
    learning: bool = True


@dataclass(frozen=True)
class _CachedProfile:
    """A profile, the labels and the store's revision that it is for, and when it may be fitted again."""

    labels: Collection[str]
    revision: int
    profile: ProjectProfile
    next_fit: float


class ProjectCache:
    """Projects as the store holds them, or as they were last while it is unavailable; safe to share between threads.

    Unless `learning`, no project learns; otherwise the store holds a switch for each.

    Fitting a profile to thousands of annotations takes a while: one thread at a time fits, at most every 10 times the
    duration of the last fit, and the others use the previous profile.
    """

    def __init__(self, predictor: Predictor, store: ProjectStore, *, learning: bool = True) -> None:
        self._predictor, self._store, self._learning = predictor, store, learning
        self._known: dict[str, _Known] = {}
        self._profiles: dict[str, _CachedProfile] = {}
        self._logged: dict[str, str] = {}  # labelling configs by project
        self._fitting = threading.Lock()
        self._read_in_time, self._write_in_time = BoundedCalls(), BoundedCalls()

    def set_up(self, project_id: str, label_config: str, extra_params: Mapping[str, Any]) -> Project:
        """Save a set-up, and return its project, with its profile if it learns.

        Raises `LabelConfigError` or `RequestError` for a set-up that cannot be used.
        """
        project = self._predictor.project_from_config(label_config, extra_params)
        self._log_unused_controls(project_id, label_config)
        self._known[project_id] = replace(self._read(project_id), extra_params=extra_params)
        project = self._with_profile(project_id, project)
        try:
            if project_id:
                versions = self.versions(project)
                self._write_in_time(_CALL_S, self._save, project_id, label_config, dict(extra_params), versions)
        except StoreError as error:
            log.warning("the set-up of project %s was not saved: %s", project_id, error)
        return project

    def versions(self, project: Project) -> list[str]:
        """Return the model versions of a project's predictions, the default last."""
        return [self._predictor.version(project, level) for level in project.options.granularities]

    def identify(self, project_id: str, created: int) -> None:
        """Check that a request is about a known project, not one of another Label Studio with the same id.

        While the database is unavailable every project is taken for the known one. Raises `RequestError`.
        """
        try:
            if project_id:
                self._read_in_time(_CALL_S, self._store.claim, project_id, created)
        except StoreError as error:
            log.warning("project %s is taken for the known one: %s", project_id, error)

    def get(self, project_id: str, label_config: str) -> Project:
        """Return a project by its labelling config and its last set-up; raises as `set_up`."""
        known = self._known[project_id] = self._read(project_id)
        return self._with_profile(project_id, self._predictor.project_from_config(label_config, known.extra_params))

    def database_problem(self) -> str:
        """Return why the database is unavailable; empty if it is available."""
        try:
            self._read_in_time(_CALL_S, self._store.learning, "")
        except StoreError as error:
            return str(error)
        return ""

    def _log_unused_controls(self, project_id: str, label_config: str) -> None:
        """Log what walkcut leaves out of a labelling config, once for each."""
        if self._logged.get(project_id) != label_config:
            self._logged[project_id] = label_config
            for message, remedy in unused_controls(label_config):
                log.warning("project %s: %s: %s", project_id, message, remedy)

    def _read(self, project_id: str) -> _Known:
        limit = _CALL_S if project_id in self._known else _FIRST_CALL_S
        try:
            return self._read_in_time(limit, self._load, project_id)
        except StoreError as error:
            log.warning("project %s is used as it was: %s", project_id, error)
            return self._known.get(project_id, _Known())

    def _save(self, project_id: str, label_config: str, extra_params: dict[str, Any], versions: list[str]) -> None:
        self._store.save_setup(project_id, label_config, extra_params)
        self._store.save_versions(project_id, versions)

    def _load(self, project_id: str) -> _Known:
        return _Known(self._store.extra_params(project_id), self._store.learning(project_id))

    def _with_profile(self, project_id: str, project: Project) -> Project:
        if not (self._learning and self._known[project_id].learning):
            return project
        labels = semantic_labels(project.image_tags)
        try:
            return project.with_profile(self._profile(project_id, labels))
        except StoreError:
            cached = self._profiles.get(project_id)
            return project.with_profile(cached.profile) if cached and cached.labels == labels else project

    def _profile(self, project_id: str, labels: Collection[str]) -> ProjectProfile:
        """Return a project's profile for the labels that it still has. Raises `StoreError`."""
        revision = self._read_in_time(_CALL_S, self._store.revision, project_id)
        cached = self._profiles.get(project_id)
        if cached is not None and cached.labels == labels:
            must_wait = self._fitting.locked() or time.monotonic() < cached.next_fit
            if cached.revision == revision or must_wait:
                return cached.profile
        with self._fitting:
            cached = self._profiles.get(project_id)
            if cached is None or (cached.labels, cached.revision) != (labels, revision):
                cached = self._profiles[project_id] = self._fit(project_id, labels, revision)
        return cached.profile

    def _fit(self, project_id: str, labels: Collection[str], revision: int) -> _CachedProfile:
        begin = time.monotonic()
        feedback = map(AnnotationFeedback.from_json, self._store.annotations.feedback(project_id))
        profile = fit_profile(feedback, self._predictor.tree_service.version, labels)
        seconds = time.monotonic() - begin
        return _CachedProfile(labels, revision, profile, begin + (_REFIT_FACTOR * seconds if seconds > _FAST_S else 0))
