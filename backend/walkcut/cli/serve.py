"""`walkcut serve`."""

import errno
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import click
import waitress
from waitress.channel import HTTPChannel

from walkcut.cli.options import chosen_settings, model_options
from walkcut.errors import SettingsError
from walkcut.inference.factory import supervised_model
from walkcut.inference.malloc import limit_malloc_arenas, periodic_malloc_trim
from walkcut.inference.tree_service import TreeService
from walkcut.serving.app import create_app
from walkcut.serving.backend import background_learning, make_backend
from walkcut.settings import unknown_variables
from walkcut.telemetry.logs import set_up_logging
from walkcut.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

_GRACE_S = 8.0  # for open requests after SIGTERM; Docker kills the process after 10
_ABORT_S = 1.0  # for open requests whose image is not segmented any more
_TRIM_INTERVAL_S = 10.0  # trimming takes some milliseconds


@click.command()
@click.option("--host", help="Address to listen on; 0.0.0.0 for all.  [WALKCUT_HOST, else 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on.  [WALKCUT_PORT, else 9090]")
@model_options
def serve(host: str | None, port: int | None, model: str | None, method: str | None, device: str | None) -> None:
    """Run the ML backend for Label Studio."""
    settings = chosen_settings(model, method, device)
    settings = replace(settings, host=host or settings.host, port=settings.port if port is None else port)
    set_up_logging(settings.log_level, settings.log_format)
    limit_malloc_arenas()
    metrics = Metrics()
    with (
        bound_sockets(settings.host, settings.port) as listeners,
        make_backend(settings, supervised_model, metrics) as backend,
    ):
        predictor = backend.predictor
        app = create_app(backend, metrics)
        metrics.set_build_info(
            model=settings.model, method=predictor.tree_service.preset_name, segmenter=predictor.tree_service.version
        )
        max_bytes = 2 * app.config["MAX_CONTENT_LENGTH"]  # the app refuses smaller ones with a message
        sockets: dict[int, Any] = {}
        port = listeners[0].getsockname()[1]
        log.info("walkcut serves model %s on http://%s:%d", settings.model, settings.host, port)
        log.info("state is kept in %s", settings.state_dir)
        for message in unknown_variables():
            log.warning(message)
        with (
            background_learning(backend.feedback_worker, settings, metrics),
            periodic_malloc_trim(_TRIM_INTERVAL_S),
            graceful_shutdown(predictor.tree_service, sockets),
        ):
            waitress.serve(
                app,
                map=sockets,
                sockets=listeners,
                threads=settings.threads,
                max_request_body_size=max_bytes,
                ident="walkcut",
            )


@contextmanager
def bound_sockets(host: str, port: int) -> Iterator[list[socket.socket]]:
    """Yield a socket for each address of the host; they do not listen yet: clients are refused until the server does.

    Raises `SettingsError` if another program listens there, or this machine does not have the address.
    """
    with ExitStack() as stack:
        try:
            addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            listeners = [stack.enter_context(_bind(*address)) for address in addresses]
        except OSError as error:
            raise _address_error(host, port, error) from error
        yield listeners


def _bind(family: int, kind: int, protocol: int, _name: str, address: tuple[Any, ...]) -> socket.socket:
    listener = socket.socket(family, kind, protocol)
    if os.name == "posix":  # elsewhere it lets two servers have one address
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
    except OSError:
        listener.close()
        raise
    return listener


def _address_error(host: str, port: int, error: OSError) -> SettingsError:
    if error.errno == errno.EADDRINUSE:
        return SettingsError(f"another program listens on port {port} of {host}: end it, or choose another --port")
    return SettingsError(f"cannot listen on port {port} of {host} ({error.strerror}): choose another --host or --port")


@contextmanager
def graceful_shutdown(tree_service: TreeService, sockets: dict[int, Any]) -> Iterator[None]:
    """At the first SIGTERM or Ctrl-C refuse new images and end after the open requests; at the second end at once."""
    draining, ended = threading.Event(), threading.Event()

    def wait_for_requests(seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not ended.wait(0.05) and time.monotonic() < deadline and any(map(_has_open_request, [*sockets.values()])):
            pass

    def drain() -> None:
        wait_for_requests(_GRACE_S)
        tree_service.close()
        wait_for_requests(_ABORT_S)
        if not ended.is_set():
            os.kill(os.getpid(), signal.SIGTERM)

    def handle(_signal_number: int, _frame: object) -> None:
        if ended.is_set():
            return
        if draining.is_set():
            raise SystemExit(0)
        draining.set()
        tree_service.stop_accepting()
        drainer.start()

    drainer = threading.Thread(target=drain)
    handlers = {name: signal.signal(name, handle) for name in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        ended.set()
        tree_service.close()
        if draining.is_set():
            drainer.join()
        for name, handler in handlers.items():
            signal.signal(name, handler)


def _has_open_request(channel: object) -> bool:
    """Return whether a client waits for a response, or for the rest of it, on one of the server's sockets."""
    return isinstance(channel, HTTPChannel) and bool(channel.requests or channel.total_outbufs_len)
