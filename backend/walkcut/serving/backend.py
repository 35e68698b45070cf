"""The backend: predictor, projects, feedback worker, store and client, made from the settings."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial

from walkcut.errors import SettingsError
from walkcut.inference.factory import ModelFactory, in_process_model, make_access, make_predictor
from walkcut.inference.predictor import Predictor
from walkcut.inference.project import Project
from walkcut.interactive.interactive_segmenter import InteractiveSegmenter
from walkcut.interactive.session import SessionStore
from walkcut.labelstudio.client import LabelStudioClient
from walkcut.serving.feedback_worker import FeedbackWorker
from walkcut.serving.project_cache import ProjectCache
from walkcut.settings import Settings
from walkcut.storage import ProjectStore
from walkcut.telemetry.failures import count_failures
from walkcut.telemetry.metrics import Metrics
from walkcut.telemetry.spans import record_spans, timer

_END_S = 0.5  # for the threads to end: Docker kills the process 10 s after SIGTERM, of which requests get 9


@dataclass(frozen=True)
class Backend:
    """The parts of a running backend; `client` is `None` unless Label Studio's address and token are set."""

    settings: Settings
    predictor: Predictor
    projects: ProjectCache
    feedback_worker: FeedbackWorker
    store: ProjectStore
    client: LabelStudioClient | None
    interactive: InteractiveSegmenter

    def require_client(self) -> LabelStudioClient:
        """Return the client of Label Studio. Raises `SettingsError` without one."""
        if self.client is None:
            raise SettingsError("this needs access to Label Studio: set LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY")
        return self.client

    def project(self, project_id: str) -> Project:
        """Return a project with its profile, by its stored labelling config or the one in Label Studio."""
        config = self.store.label_config(project_id) or self.require_client().label_config(project_id)
        return self.projects.get(project_id, config)


@contextmanager
def make_backend(
    settings: Settings, make_model: ModelFactory = in_process_model, metrics: Metrics | None = None
) -> Iterator[Backend]:
    """Make the backend of the settings, and close it at the end. Raises `SettingsError`."""
    with closing(ProjectStore(settings.state_dir, settings.database_url)) as store:
        access = make_access(settings)
        predictor = make_predictor(settings, make_model, metrics)
        with closing(predictor.tree_service):
            client = LabelStudioClient(access, ca_bundle=settings.ca_bundle) if access and access.token else None
            yield Backend(
                settings,
                predictor,
                ProjectCache(predictor, store, learning=settings.learning),
                FeedbackWorker(predictor, store, client),
                store,
                client,
                InteractiveSegmenter(predictor, SessionStore()),
            )


@contextmanager
def background_learning(worker: FeedbackWorker, settings: Settings, metrics: Metrics) -> Iterator[None]:
    """Learn and sync with Label Studio until the block ends, in two threads, so that neither waits for the other.

    If the settings switch learning off, only the deletions of a sync are carried out.
    """
    stop = threading.Event()
    sync = partial(worker.synchronizer.run, stop, settings.sync_interval, learning=settings.learning)
    jobs: dict[str, Callable[[], None]] = {"sync": sync}
    if settings.learning:
        jobs["feedback"] = partial(worker.run, stop)

    def run(job: Callable[[], None]) -> None:
        with record_spans(timer(metrics.record_stage)), count_failures(metrics.count_failure):
            job()

    # Daemons: one that waits for Label Studio or an image is not waited for, and its work is repeated later.
    threads = [threading.Thread(target=run, args=(job,), name=name, daemon=True) for name, job in jobs.items()]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        deadline = time.monotonic() + _END_S
        for thread in threads:
            thread.join(max(deadline - time.monotonic(), 0))
