"""What commands put together from settings."""

import multiprocessing
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from walkcut.auth import is_loopback
from walkcut.cli.options import segmenter_of
from walkcut.errors import SettingsError
from walkcut.images import DecodeLimits, FetchPolicy, LabelStudioAccess, PictureSource
from walkcut.inference.predictor import Annotator, Options, Project
from walkcut.inference.tree_service import Grower, LocalModel, Model
from walkcut.inference.worker import ModelWorker
from walkcut.labelstudio.client import Studio
from walkcut.serving.feedback import Learner
from walkcut.settings import Settings
from walkcut.storage import ProjectStore, TreeCache
from walkcut.storage.quarantine import Quarantine
from walkcut.telemetry.metrics import Metrics
from walkcut.telemetry.stages import counted, observed

_LEARNER_S = 10.0  # for the learner to end: what it is at then is taken in again at the next start


@dataclass(frozen=True)
class Backend:
    """All that answers Label Studio and learns from it; `studio` is there where its address and token are set."""

    annotator: Annotator
    learner: Learner
    store: ProjectStore
    studio: Studio | None

    def asked_studio(self) -> Studio:
        """Label Studio, for what cannot be done without. Raises `SettingsError` where it is not set."""
        if self.studio is None:
            raise SettingsError("Label Studio cannot be asked: set LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY")
        return self.studio

    def project(self, number: str) -> Project:
        """A project as its annotators taught it to be, with its labelling config as remembered or from Label Studio."""
        config = self.store.label_config(number) or self.asked_studio().label_config(number)
        return self.learner.project(number, config, self.store.extra_params(number))


def local_model(settings: Settings, _metrics: Metrics) -> Model:
    """The model in this process."""
    return LocalModel(segmenter_of(settings), DecodeLimits(settings.max_pixels))


def model_in_process_of_its_own(settings: Settings, metrics: Metrics) -> Model:
    """The model in a process that may die."""
    multiprocessing.set_forkserver_preload(["walkcut.cli"])  # so that none that is started again imports it anew
    quarantine = Quarantine(settings.state_dir / "quarantine")
    limits, seconds = DecodeLimits(settings.max_pixels), settings.picture_timeout
    worker = ModelWorker(partial(segmenter_of, settings), limits, quarantine, metrics, seconds=seconds)
    metrics.quarantined.set_function(lambda: len(quarantine))
    metrics.watch_process("model", lambda: worker.pid)
    return worker


@contextmanager
def backend_of(
    settings: Settings, make_model: Callable[[Settings, Metrics], Model] = local_model, metrics: Metrics | None = None
) -> Iterator[Backend]:
    """The backend of these settings, closed at the end. Raises `SettingsError` for settings that do not fit."""
    with closing(ProjectStore(settings.state_dir, settings.database_url)) as store:
        access = access_of(settings)
        annotator = annotator_of(settings, make_model, metrics)
        with closing(annotator.grower):
            studio = Studio(access, ca_bundle=settings.ca_bundle) if access is not None and access.token else None
            learner = Learner(annotator, store, studio, on=settings.learning)
            yield Backend(annotator, learner, store, studio)


def annotator_of(
    settings: Settings, make_model: Callable[[Settings, Metrics], Model] = local_model, metrics: Metrics | None = None
) -> Annotator:
    """What answers tasks, with trees of the model that is made."""
    metrics, known = metrics or Metrics(), knows_callers(settings)
    source = PictureSource(policy_of(settings), access_of(settings), knows_callers=known)
    cache = TreeCache(trees_of(settings), settings.cache_bytes)
    grower = Grower(make_model(settings, metrics), cache, metrics)
    return Annotator(grower, source, options_of(settings), patience=settings.predict_timeout)


@contextmanager
def learning(learner: Learner, every: float, metrics: Metrics) -> Iterator[None]:
    """Learn in a thread until the end, and compare with Label Studio `every` so many seconds."""
    stop = threading.Event()

    def learn() -> None:
        with observed(metrics.time_stage), counted(metrics.count_failure):
            learner.run(stop, every)

    thread = threading.Thread(target=learn, name="learner", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(_LEARNER_S)


def trees_of(settings: Settings) -> Path:
    """Where the backend keeps cut trees."""
    return settings.state_dir / "trees"


def options_of(settings: Settings) -> Options:
    """What projects start from."""
    return Options(settings.granularity, settings.max_regions, settings.min_area, settings.label_confidence)


def policy_of(settings: Settings) -> FetchPolicy:
    """Where pictures may be fetched from."""
    return FetchPolicy(
        max_bytes=settings.max_bytes,
        timeout=settings.fetch_timeout,
        allow_private_hosts=settings.allow_private_hosts,
        allowed_hosts=frozenset(settings.allowed_hosts),
        only_allowed_hosts=settings.only_allowed_hosts,
        local_files_root=settings.local_files_root,
        ca_bundle=settings.ca_bundle,
    )


def knows_callers(settings: Settings) -> bool:
    """Whether not just anybody can call the backend."""
    return settings.credentials.are_asked_for or is_loopback(settings.host)


def access_of(settings: Settings) -> LabelStudioAccess | None:
    """Where Label Studio is, if that is set."""
    url, token = settings.label_studio_url, settings.label_studio_api_key
    if token and not url:
        raise SettingsError("LABEL_STUDIO_API_KEY is of no use without LABEL_STUDIO_URL: set that too")
    return LabelStudioAccess(url, token) if url else None
