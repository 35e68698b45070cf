"""`walkcut serve`."""

import logging
import signal
import threading
from dataclasses import replace

import click
import waitress

from walkcut.cli.parts import backend_of
from walkcut.server import create_app
from walkcut.settings import read_settings

log = logging.getLogger(__name__)


@click.command()
@click.option("--host", help="Address to listen on; 0.0.0.0 for all.  [WALKCUT_HOST, else 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on.  [WALKCUT_PORT, else 9090]")
def serve(host: str | None, port: int | None) -> None:
    """Run the ML backend for Label Studio."""
    settings = read_settings()
    settings = replace(settings, host=host or settings.host, port=settings.port if port is None else port)
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for each request to Label Studio
    stop, before = threading.Event(), signal.signal(signal.SIGTERM, _end)
    with backend_of(settings) as backend:
        app = create_app(backend.annotator, backend.learner, backend.store, settings)
        learning = threading.Thread(target=backend.learner.run, args=(stop, settings.compare_seconds), name="learner")
        learning.start()
        log.info("walkcut serves model %s on http://%s:%d", settings.model, settings.host, settings.port)
        log.info("state is kept in %s", settings.state_dir)
        try:
            waitress.serve(app, host=settings.host, port=settings.port, threads=settings.threads, ident="walkcut")
        finally:
            stop.set()
            learning.join()
            signal.signal(signal.SIGTERM, before)


def _end(_number: int, _frame: object) -> None:
    """End as at Ctrl-C: answers being worked out have some seconds left, and the state is closed."""
    raise SystemExit(0)
