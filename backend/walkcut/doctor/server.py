"""Checks of walkcut itself: its port, and its response times against Label Studio's timeouts."""

import base64
import errno
import io
import math
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import numpy as np
from PIL import Image

from walkcut.auth import Credentials
from walkcut.backbones import CLASSICAL
from walkcut.doctor.checks import Finding
from walkcut.errors import SettingsError, WalkcutError
from walkcut.inference.factory import make_predictor
from walkcut.labelstudio.config import EXAMPLE_CONFIG
from walkcut.labelstudio.tasks import Task
from walkcut.settings import Settings

_PREDICT_TIMEOUT_S, _OTHER_TIMEOUT_S = 100.0, 1.0  # Label Studio's
_SLOW_S = 10.0  # an annotator who opens a new task waits this long for its prediction
_REQUEST_TIMEOUT_S = 10.0
_IMAGE_SIZE = (768, 1024)
_SERVER, _ADAPTER = "walkcut", "WalkcutModel"  # model_class of walkcut's server, and under label-studio-ml


class ServerError(WalkcutError):
    """A walkcut server that does not answer, or not with a prediction."""


@dataclass(frozen=True)
class ServerProbe:
    """Client of a walkcut server, with the credentials of the settings."""

    url: str
    credentials: Credentials = field(default_factory=Credentials)
    is_adapter: bool = False  # under label-studio-ml, whose server has no /versions

    def get(self, path: str) -> Any:
        """Get a document. Raises `SettingsError` for wrong credentials, else `ServerError`."""
        return self._request("GET", path, timeout=_REQUEST_TIMEOUT_S)

    def post(self, path: str, document: object, *, timeout: float = _REQUEST_TIMEOUT_S) -> Any:
        """Post a document and return the answer. Raises as `get`."""
        return self._request("POST", path, timeout=timeout, json=document)

    def unready_reasons(self) -> list[str]:
        """Return why the server accepts no new images; empty if it does, or gives no reason."""
        try:
            document = _get_json(f"{self.url}/ready", self._auth_headers)
        except (httpx.HTTPError, ValueError):
            return []
        reasons = document.get("reasons") if isinstance(document, dict) else None
        return [str(reason) for reason in reasons] if isinstance(reasons, list) else []

    def serves_any(self, versions: Set[object]) -> bool:
        """Return whether the server serves one of the model versions; true if it cannot be asked. Raises as `get`."""
        return self.is_adapter or not versions.isdisjoint(self.get("/versions")["versions"])

    @property
    def _auth_headers(self) -> dict[str, str]:
        return {"Authorization": self.credentials.header} if self.credentials.required else {}

    def _request(self, method: str, path: str, *, timeout: float, json: object = None) -> Any:
        try:
            response = httpx.request(
                method, f"{self.url}{path}", json=json, headers=self._auth_headers, timeout=timeout, trust_env=False
            )
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise ServerError(
                f"{self.url}{path} did not answer ({reason}): check whether walkcut is overloaded"
            ) from error
        if response.status_code == httpx.codes.UNAUTHORIZED:
            raise SettingsError(
                f"{self.url} refuses the credentials of these settings: set WALKCUT_BASIC_AUTH_USER and "
                "WALKCUT_BASIC_AUTH_PASS, or WALKCUT_TOKEN, to the values that the server was started with"
            )
        if response.status_code != httpx.codes.OK:
            raise ServerError(f"{self.url}{path} answered {response.status_code}: see walkcut's log")
        return response.json()


def _get_json(url: str, headers: Mapping[str, str] | None = None) -> Any:
    return httpx.get(url, headers=headers, timeout=_REQUEST_TIMEOUT_S, trust_env=False).json()


def find_server(settings: Settings) -> ServerProbe | None:
    """Return the walkcut that answers at the host and port of the settings, ready or not; `None` without one."""
    url = f"http://{_connectable(settings.host)}:{settings.port}"
    try:
        document = _get_json(f"{url}/health")
    except (httpx.HTTPError, httpx.InvalidURL, ValueError):
        return None
    name = document.get("model_class") if isinstance(document, dict) else None
    if name not in {_SERVER, _ADAPTER}:
        return None
    return ServerProbe(url, settings.credentials, is_adapter=name == _ADAPTER)


def check_port(settings: Settings, server: ServerProbe | None) -> Iterator[Finding]:
    """Check that walkcut answers at its port and is ready, or that the port is free."""
    if server is not None:
        yield Finding("port", "ok", f"walkcut answers at {server.url}")
        if reasons := server.unready_reasons():
            message = f"walkcut is not ready for new images: {'; '.join(reasons)}"
            yield Finding("port", "error", message, "see walkcut's log, and try again in a minute")
        return
    address = f"{settings.host}:{settings.port}"
    try:
        with socket.create_server((settings.host, settings.port)):
            pass
    except OSError as error:
        yield Finding("port", "error", f"{address} cannot be used: {error.strerror or error}", _port_remedy(error))
        return
    yield Finding("port", "ok", f"{address} is free; walkcut is not running there")


def _port_remedy(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "another program uses the port: stop it, or set WALKCUT_PORT to another port"
    if error.errno == errno.EACCES:
        return "set WALKCUT_PORT to 1024 or more"
    return "set WALKCUT_HOST to an address of this machine: 127.0.0.1, or 0.0.0.0 for all"


def _connectable(host: str) -> str:
    """Return the host to connect to, as in a URL, of a server that listens on `host`."""
    if host in {"", "0.0.0.0", "::"}:  # noqa: S104 - connected to, not listened on
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


def check_responses(server: ServerProbe) -> Iterator[Finding]:
    """Check how fast the health check and a webhook are answered; the webhook's event is of no known kind."""
    yield _response_time("health", lambda: server.get("/health"))
    yield _response_time("webhook", lambda: server.post("/webhook", {"action": "DOCTOR"}))


def _response_time(name: str, request: Callable[[], object]) -> Finding:
    seconds = _seconds(request)
    message = f"/{name} answers in {seconds * 1000:.0f} ms; Label Studio waits {_OTHER_TIMEOUT_S:g} s"
    if seconds < _OTHER_TIMEOUT_S:
        return Finding("latency", "ok", message)
    remedy = "check what else the machine does, and whether the disk of WALKCUT_STATE_DIR is slow"
    return Finding("latency", "error", message, remedy)


def check_prediction(settings: Settings, server: ServerProbe | None) -> Iterator[Finding]:
    """Measure a prediction by the running server, or by the classical model in this process. Raises `WalkcutError`."""
    if server is not None:
        seconds = _seconds(lambda: _predict_remotely(server, _random_image()))
    elif settings.model == CLASSICAL:
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
    if not server.post("/predict", document, timeout=_PREDICT_TIMEOUT_S)["results"][0]:
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
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _seconds(action: Callable[[], object]) -> float:
    begin = time.monotonic()
    action()
    return time.monotonic() - begin
