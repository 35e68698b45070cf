"""Checks of walkcut itself: its port, and its response times against Label Studio's timeouts."""

import base64
import errno
import math
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import numpy as np

from walkcut.auth import Credentials
from walkcut.doctor.checks import Finding
from walkcut.errors import SettingsError, WalkcutError
from walkcut.images.encode import encode_png
from walkcut.inference.factory import make_predictor
from walkcut.labelstudio.tags import EXAMPLE_CONFIG
from walkcut.labelstudio.tasks import Task
from walkcut.models import CLASSICAL, HED, is_onnx
from walkcut.settings import Settings

_PREDICT_TIMEOUT_S, _OTHER_TIMEOUT_S = 100.0, 1.0  # Label Studio's
_SLOW_S = 10.0  # an annotator who opens a new task waits this long for its prediction
_REQUEST_TIMEOUT_S = 10.0
_IMAGE_SIZE = (768, 1024)
_PORT_REMEDIES = {
    errno.EADDRINUSE: "another program uses the port: stop it, or set WALKCUT_PORT to another port",
    errno.EACCES: "set WALKCUT_PORT to 1024 or more",
}
_HOST_REMEDY = "set WALKCUT_HOST to an address of this machine: 127.0.0.1, or 0.0.0.0 for all"
_SERVER, _ADAPTER = "walkcut", "WalkcutModel"  # model_class of walkcut's server, and under label-studio-ml


class ServerError(WalkcutError):
    """A walkcut server that does not answer, or not with a prediction."""


@dataclass(frozen=True)
class ServerProbe:
    """Client of a walkcut server, with the credentials of the settings."""

    url: str
    credentials: Credentials = field(default_factory=Credentials)
    is_adapter: bool = False  # under label-studio-ml, whose server has no /versions

    def request(self, path: str, document: object = None, *, timeout: float = _REQUEST_TIMEOUT_S) -> Any:
        """Get a path, or post a document to it. Raises `SettingsError` for wrong credentials, else `ServerError`."""
        method, url = "GET" if document is None else "POST", f"{self.url}{path}"
        try:
            response = httpx.request(method, url, json=document, headers=self.headers, timeout=timeout, trust_env=False)
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise ServerError(f"{url} did not answer ({reason}): check whether walkcut is overloaded") from error
        if response.status_code == httpx.codes.UNAUTHORIZED:
            raise SettingsError(
                f"{self.url} refuses the credentials of these settings: set WALKCUT_BASIC_AUTH_USER and "
                "WALKCUT_BASIC_AUTH_PASS, or WALKCUT_TOKEN, to the values that the server was started with"
            )
        if response.status_code != httpx.codes.OK:
            raise ServerError(f"{url} answered {response.status_code}: see walkcut's log")
        return response.json()

    def serves_any(self, versions: Set[object], project_id: str) -> bool:
        """Return whether the server serves a project at one of the versions; true if it cannot be asked.

        Raises as `request`.
        """
        path = f"/versions?project={project_id}"
        return self.is_adapter or not versions.isdisjoint(self.request(path)["versions"])

    @property
    def headers(self) -> dict[str, str]:
        """Authorization, if the credentials require it."""
        return {"Authorization": self.credentials.header} if self.credentials.required else {}


def _read_object(url: str, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the JSON object at an address, whatever the status; empty if there is none."""
    try:
        document = httpx.get(url, headers=headers, timeout=_REQUEST_TIMEOUT_S, trust_env=False).json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def find_server(settings: Settings) -> ServerProbe | None:
    """Return the walkcut that answers at the host and port of the settings, ready or not; `None` without one."""
    host = settings.host if settings.host not in {"", "0.0.0.0", "::"} else "127.0.0.1"  # noqa: S104 - connected to
    url = f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"
    name = _read_object(f"{url}/health").get("model_class")
    if name not in {_SERVER, _ADAPTER}:
        return None
    return ServerProbe(url, settings.credentials, is_adapter=name == _ADAPTER)


def check_port(settings: Settings, server: ServerProbe | None) -> Iterator[Finding]:
    """Check that walkcut answers at its port and is ready, or that the port is free."""
    if server is not None:
        yield Finding("port", "ok", f"walkcut answers at {server.url}")
        readiness = _read_object(f"{server.url}/ready", server.headers)
        reasons = readiness.get("reasons")
        if isinstance(reasons, list) and reasons:
            state = "predicts, with problems" if readiness.get("status") == "READY" else "is not ready for new images"
            message = f"walkcut {state}: {'; '.join(map(str, reasons))}"
            yield Finding("port", "error", message, "see walkcut's log, and try again in a minute")
        for failure in readiness.get("failures") or ():
            message = f"tasks or requests failed since walkcut's start: {failure}"
            yield Finding("failures", "warning", message, "follow the message; walkcut's log names the tasks")
        return
    address = f"{settings.host}:{settings.port}"
    try:
        with socket.create_server((settings.host, settings.port)):
            pass
    except OSError as error:
        remedy = _PORT_REMEDIES.get(error.errno or 0, _HOST_REMEDY)
        yield Finding("port", "error", f"{address} cannot be used: {error.strerror or error}", remedy)
        return
    yield Finding("port", "ok", f"{address} is free; walkcut is not running there")


def check_responses(server: ServerProbe) -> Iterator[Finding]:
    """Check how fast the health check and a webhook are answered; the webhook's event is of no known kind."""
    for path, document in (("/health", None), ("/webhook", {"action": "DOCTOR"})):
        seconds = _seconds(partial(server.request, path, document))
        message = f"{path} answers in {seconds * 1000:.0f} ms; Label Studio waits {_OTHER_TIMEOUT_S:g} s"
        if seconds < _OTHER_TIMEOUT_S:
            yield Finding("latency", "ok", message)
        else:
            remedy = "check what else the machine does, and whether the disk of WALKCUT_STATE_DIR is slow"
            yield Finding("latency", "error", message, remedy)


def check_prediction(settings: Settings, server: ServerProbe | None) -> Iterator[Finding]:
    """Measure a prediction by the running server, or by a small model in this process. Raises `WalkcutError`."""
    if server is not None:
        seconds = _seconds(lambda: _predict_remotely(server, _random_image()))
    elif settings.model in (CLASSICAL, HED) or is_onnx(settings.model):
        seconds = _time_local_prediction(settings)
    else:
        message = f"the time of a prediction by {settings.model} was not measured: walkcut is not running here"
        yield Finding("latency", "warning", message, "start `walkcut serve` and run `walkcut doctor` again")
        return
    yield latency_finding(seconds, settings.predict_timeout)


def latency_finding(seconds: float, timeout: float) -> Finding:
    """Return the finding for a prediction that takes `seconds`, with `timeout` seconds for a request."""
    per_request = math.floor(min(timeout, _PREDICT_TIMEOUT_S) / max(seconds, 0.001))
    height, width = _IMAGE_SIZE
    message = f"a {width}×{height} image takes {seconds:.1f} s; Label Studio waits {_PREDICT_TIMEOUT_S:g} s"
    faster = "choose a smaller model, set WALKCUT_DEVICE=cuda, or give walkcut a faster machine"
    if not per_request:
        message = f"{message}: no prediction is in time (WALKCUT_PREDICT_TIMEOUT={timeout:g})"
        return Finding("latency", "error", message, faster)
    message = f"{message}: one request, such as Retrieve predictions, can predict about {per_request}"
    if seconds > _SLOW_S:
        remedy = f"{faster}, or predict before annotators begin: `walkcut prelabel --project ID`"
        return Finding("latency", "warning", message, remedy)
    return Finding("latency", "ok", f"{message}; `walkcut prelabel --project ID` has no limit")


def _predict_remotely(server: ServerProbe, image: str) -> None:
    """Predict an image over HTTP, outside of any project. Raises `ServerError` without a prediction."""
    tasks = [{"id": 0, "data": {"image": image}}]
    document = {"tasks": tasks, "project": None, "label_config": EXAMPLE_CONFIG, "params": {"context": None}}
    if not server.request("/predict", document, timeout=_PREDICT_TIMEOUT_S)["results"][0]:
        raise ServerError(f"{server.url} returns no prediction for a test image: see walkcut's log")


def _time_local_prediction(settings: Settings) -> float:
    """Return the seconds of a prediction in this process, with a temporary state folder."""
    with TemporaryDirectory() as folder:
        predictor = make_predictor(replace(settings, state_dir=Path(folder)))
        with closing(predictor.tree_service):
            project, task = predictor.project_from_config(EXAMPLE_CONFIG, {}), Task(0, {"image": _random_image()})
            return _seconds(lambda: predictor.predict(task, project))


def _random_image() -> str:
    """Return a noisy image of coloured rectangles as a data: URL; random, so that it is in no cache."""
    rng = np.random.default_rng(secrets.randbits(64))
    height, width = _IMAGE_SIZE
    rectangles = rng.integers(0, 256, (6, 8, 3)).repeat(height // 6, 0).repeat(width // 8, 1)
    pixels = np.clip(rectangles + rng.normal(0, 4, rectangles.shape), 0, 255).astype(np.uint8)
    return f"data:image/png;base64,{base64.b64encode(encode_png(pixels)).decode()}"


def _seconds(action: Callable[[], object]) -> float:
    begin = time.monotonic()
    action()
    return time.monotonic() - begin
