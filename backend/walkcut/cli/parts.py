"""What commands put together from settings."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from walkcut.annotator import Annotator, Options, Project
from walkcut.cli.options import segmenter_of
from walkcut.errors import SettingsError
from walkcut.images import DecodeLimits, FetchPolicy, LabelStudioAccess, PictureSource
from walkcut.learner import Learner
from walkcut.settings import Settings
from walkcut.store import ProjectStore, TreeCache
from walkcut.studio import Studio


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


@contextmanager
def backend_of(settings: Settings) -> Iterator[Backend]:
    """The backend of these settings, closed at the end. Raises `SettingsError` for settings that do not fit."""
    with closing(ProjectStore(settings.state_dir, settings.database_url)) as store:
        annotator, access = annotator_of(settings), access_of(settings)
        studio = Studio(access, ca_bundle=settings.ca_bundle) if access is not None and access.token else None
        yield Backend(annotator, Learner(annotator, store, studio, on=settings.learning), store, studio)


def annotator_of(settings: Settings) -> Annotator:
    """What answers tasks."""
    return Annotator(
        segmenter_of(settings),
        PictureSource(policy_of(settings), access_of(settings)),
        DecodeLimits(settings.max_pixels),
        TreeCache(trees_of(settings), settings.cache_bytes),
        options_of(settings),
    )


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
        local_files_root=settings.local_files_root,
        ca_bundle=settings.ca_bundle,
    )


def access_of(settings: Settings) -> LabelStudioAccess | None:
    """Where Label Studio is, if that is set."""
    url, token = settings.label_studio_url, settings.label_studio_api_key
    if token and not url:
        raise SettingsError("LABEL_STUDIO_API_KEY is of no use without LABEL_STUDIO_URL: set that too")
    return LabelStudioAccess(url, token) if url else None
