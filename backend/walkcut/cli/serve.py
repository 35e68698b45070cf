"""`walkcut serve`."""

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import click
import waitress
from waitress.channel import HTTPChannel

from walkcut.inference.factory import supervised_model
from walkcut.inference.malloc import limit_malloc_arenas, periodic_malloc_trim
from walkcut.inference.tree_service import TreeService
from walkcut.serving.app import create_app
from walkcut.serving.backend import background_learning, make_backend
from walkcut.settings import read_settings
from walkcut.telemetry.logs import set_up_logging
from walkcut.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

_GRACE_S = 8.0  # for answers being worked out when the server is told to end; Docker kills it after 10
_LAST_S = 1.0  # for those that were given up then
_GIVE_BACK_S = 10.0  # it takes some milliseconds


@click.command()
@click.option("--host", help="Address to listen on; 0.0.0.0 for all.  [WALKCUT_HOST, else 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on.  [WALKCUT_PORT, else 9090]")
def serve(host: str | None, port: int | None) -> None:
    """Run the ML backend for Label Studio."""
    settings = read_settings()
    settings = replace(settings, host=host or settings.host, port=settings.port if port is None else port)
    set_up_logging(settings.log_level, settings.log_format)
    limit_malloc_arenas()
    metrics = Metrics()
    with make_backend(settings, supervised_model, metrics) as backend:
        predictor = backend.predictor
        app = create_app(predictor, backend.feedback_worker, backend.store, settings, metrics)
        metrics.set_build_info(
            model=settings.model, method=predictor.tree_service.method, segmenter=predictor.segmenter_version
        )
        sockets: dict[int, Any] = {}
        log.info("walkcut serves model %s on http://%s:%d", settings.model, settings.host, settings.port)
        log.info("state is kept in %s", settings.state_dir)
        with (
            background_learning(backend.feedback_worker, settings.sync_interval, metrics),
            periodic_malloc_trim(_GIVE_BACK_S),
            graceful_shutdown(predictor.tree_service, sockets),
        ):
            waitress.serve(
                app,
                map=sockets,
                host=settings.host,
                port=settings.port,
                threads=settings.threads,
                max_request_body_size=2 * app.config["MAX_CONTENT_LENGTH"],  # beyond it waitress refuses by itself
                ident="walkcut",
            )


@contextmanager
def graceful_shutdown(tree_service: TreeService, sockets: dict[int, Any]) -> Iterator[None]:
    """At SIGTERM or Ctrl-C hand back what waits, and end when all is answered or after a while; at a second one now."""
    ending, over = threading.Event(), threading.Event()

    def wait_for_answers(seconds: float) -> None:
        end = time.monotonic() + seconds
        while not over.wait(0.05) and time.monotonic() < end and any(map(_has_open_request, list(sockets.values()))):
            pass

    def drain() -> None:
        wait_for_answers(_GRACE_S)
        tree_service.close()
        wait_for_answers(_LAST_S)
        if not over.is_set():
            os.kill(os.getpid(), signal.SIGTERM)

    def handle(_number: int, _frame: object) -> None:
        if over.is_set():
            return
        if ending.is_set():
            raise SystemExit(0)
        ending.set()
        tree_service.stop_accepting()
        drainer.start()

    drainer = threading.Thread(target=drain)
    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        over.set()
        tree_service.close()
        if ending.is_set():
            drainer.join()
        for number, handler in before.items():
            signal.signal(number, handler)


def _has_open_request(each: object) -> bool:
    """Whether a caller waits for an answer, or for the rest of it, on one of a server's sockets."""
    return isinstance(each, HTTPChannel) and bool(each.requests or each.total_outbufs_len)
