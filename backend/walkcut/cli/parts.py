"""What commands put together from settings."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

from walkcut.annotator import Annotator, Options
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
        TreeCache(settings.state_dir / "trees", settings.cache_bytes),
        Options(settings.granularity, settings.max_regions, settings.min_area, settings.label_confidence),
    )


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
