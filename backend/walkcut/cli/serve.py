"""`walkcut serve`."""

import logging
from contextlib import closing
from dataclasses import replace

import click
import waitress

from walkcut.annotator import Annotator, Options
from walkcut.cli.options import segmenter_of
from walkcut.errors import SettingsError
from walkcut.images import DecodeLimits, FetchPolicy, LabelStudioAccess, PictureSource
from walkcut.server import create_app
from walkcut.settings import Settings, read_settings
from walkcut.store import ProjectStore, TreeCache

log = logging.getLogger(__name__)


@click.command()
@click.option("--host", help="Address to listen on; 0.0.0.0 for all.  [WALKCUT_HOST, else 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on.  [WALKCUT_PORT, else 9090]")
def serve(host: str | None, port: int | None) -> None:
    """Run the ML backend for Label Studio."""
    settings = read_settings()
    settings = replace(settings, host=host or settings.host, port=settings.port if port is None else port)
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    with closing(ProjectStore(settings.state_dir)) as store:
        app = create_app(_annotator(settings), store, settings)
        log.info("walkcut serves model %s on http://%s:%d", settings.model, settings.host, settings.port)
        log.info("state is kept in %s", settings.state_dir)
        waitress.serve(app, host=settings.host, port=settings.port, threads=settings.threads, ident="walkcut")


def _annotator(settings: Settings) -> Annotator:
    """All that answers tasks, put together."""
    policy = FetchPolicy(
        max_bytes=settings.max_bytes,
        timeout=settings.fetch_timeout,
        allow_private_hosts=settings.allow_private_hosts,
        allowed_hosts=frozenset(settings.allowed_hosts),
        local_files_root=settings.local_files_root,
        ca_bundle=settings.ca_bundle,
    )
    url, token = settings.label_studio_url, settings.label_studio_api_key
    if token and not url:
        raise SettingsError("LABEL_STUDIO_API_KEY is of no use without LABEL_STUDIO_URL: set that too")
    return Annotator(
        segmenter_of(settings),
        PictureSource(policy, LabelStudioAccess(url, token) if url else None),
        DecodeLimits(settings.max_pixels),
        TreeCache(settings.state_dir / "trees", settings.cache_bytes),
        Options(settings.granularity, settings.max_regions, settings.min_area),
    )
