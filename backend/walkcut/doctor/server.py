"""The walkcut that runs, if any: its port, and how its answers stand to what Label Studio waits for."""

import base64
import errno
import io
import math
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np
from PIL import Image

from walkcut.auth import Credentials
from walkcut.backbones import CLASSICAL
from walkcut.doctor.checks import Finding
from walkcut.errors import RequestError, SettingsError
from walkcut.inference.predictor import Predictor
from walkcut.labelstudio import Task
from walkcut.settings import Settings

# Label Studio's own limits in seconds.
_HEALTH, _WEBHOOK, _PREDICT = 1.0, 1.0, 100.0
_SLOW = 10.0  # an annotator who opens a new task waits so long for its prediction
_SIZE = (768, 1024)
_AHEAD = "`walkcut prelabel --project ID`"
_SERVER, _ADAPTER = "walkcut", "WalkcutModel"  # what each calls itself
_CONFIG = (
    '<View><Image name="image" value="$image"/><BrushLabels name="brush" toName="image">'
    '<Label value="Region"/></BrushLabels></View>'
)


@dataclass(frozen=True)
class ServerProbe:
    """A walkcut that answers at an address, asked with the credentials of the settings."""

    url: str
    credentials: Credentials = field(default_factory=Credentials)
    by_adapter: bool = False  # under label-studio-ml, whose server has no /versions

    def get(self, path: str) -> Any:
        """A document of its own. Raises `SettingsError` or `RequestError`."""
        return self._ask("GET", path, timeout=10.0)

    def post(self, path: str, document: object, *, timeout: float = 10.0) -> Any:
        """Its answer to a document. Raises `SettingsError` or `RequestError`."""
        return self._ask("POST", path, timeout=timeout, json=document)

    def unready_reasons(self) -> list[str]:
        """Why it answers no new images now, as far as it tells."""
        try:
            with httpx.Client(timeout=10.0, trust_env=False) as client:
                said = client.get(f"{self.url}/ready", headers=self._shown).json()
        except (httpx.HTTPError, ValueError):
            return []
        reasons = said.get("reasons") if isinstance(said, dict) else None
        return [str(reason) for reason in reasons] if isinstance(reasons, list) else []

    def has_offered(self, versions: Set[object]) -> bool:
        """Whether it answers with one of these versions, as far as it tells. Raises as `get`."""
        return self.by_adapter or not versions.isdisjoint(self.get("/versions")["versions"])

    @property
    def _shown(self) -> dict[str, str]:
        """The headers that show the credentials."""
        return {"Authorization": self.credentials.header} if self.credentials.required else {}

    def _ask(self, method: str, path: str, *, timeout: float, json: object = None) -> Any:
        try:
            with httpx.Client(timeout=timeout, trust_env=False) as client:
                answer = client.request(method, f"{self.url}{path}", json=json, headers=self._shown)
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise RequestError(
                f"{self.url}{path} did not answer ({reason}): see whether walkcut is overloaded"
            ) from error
        if answer.status_code == httpx.codes.UNAUTHORIZED:
            raise SettingsError(
                f"{self.url} does not take the credentials that are set here: set WALKCUT_BASIC_AUTH_USER and "
                "WALKCUT_BASIC_AUTH_PASS, or WALKCUT_TOKEN, as where it was started"
            )
        if answer.status_code != httpx.codes.OK:
            raise RequestError(f"{self.url}{path} answered {answer.status_code}: see walkcut's log")
        return answer.json()


def find_server(settings: Settings) -> ServerProbe | None:
    """The walkcut that answers at host and port of the settings, if one does, ready or not."""
    url = f"http://{_reachable(settings.host)}:{settings.port}"
    try:
        with httpx.Client(timeout=10.0, trust_env=False) as client:
            said = client.get(f"{url}/health").json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError):
        return None
    name = said.get("model_class") if isinstance(said, dict) else None
    if name not in {_SERVER, _ADAPTER}:
        return None
    return ServerProbe(url, settings.credentials, by_adapter=name == _ADAPTER)


def check_port(settings: Settings, running: ServerProbe | None) -> Iterator[Finding]:
    """Whether the port is walkcut's own, or free for it."""
    place = f"{settings.host}:{settings.port}"
    if running is not None:
        yield Finding("port", "ok", f"walkcut answers at {running.url}")
        if reasons := running.unready_reasons():
            told = f"walkcut is not ready for new images: {'; '.join(reasons)}"
            yield Finding("port", "error", told, "see walkcut's log, and ask again in a minute")
        return
    try:
        with socket.create_server((settings.host, settings.port)):
            pass
    except OSError as error:
        yield Finding("port", "error", f"{place} cannot be used: {error.strerror or error}", _port_remedy(error))
        return
    yield Finding("port", "ok", f"{place} is free; walkcut is not running there")


def _port_remedy(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "another program listens there: end it, or set WALKCUT_PORT to another port"
    if error.errno == errno.EACCES:
        return "set WALKCUT_PORT to a port from 1024 on"
    return "set WALKCUT_HOST to an address of this machine: 127.0.0.1, or 0.0.0.0 for all"


def _reachable(host: str) -> str:
    """Where to ask a server that listens on `host`, as it stands in a URL."""
    if host in {"", "0.0.0.0", "::"}:  # noqa: S104 - asked, not listened on
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


def check_answers(running: ServerProbe) -> Iterator[Finding]:
    """How soon health check and webhook are answered; the webhook tells of nothing, and leaves a line in the store."""
    told = {"action": "DOCTOR"}
    for name, limit, ask in (
        ("health", _HEALTH, lambda: running.get("/health")),
        ("webhook", _WEBHOOK, lambda: running.post("/webhook", told)),
    ):
        seconds = _seconds(ask)
        said = f"/{name} answers in {seconds * 1000:.0f} ms; Label Studio waits {limit:g} s"
        slow = "see what else the machine does, and whether the disk of WALKCUT_STATE_DIR is slow"
        yield Finding("clock", "ok", said) if seconds < limit else Finding("clock", "error", said, slow)


def check_prediction(
    settings: Settings, running: ServerProbe | None, predictor: Callable[[], Predictor]
) -> Iterator[Finding]:
    """How long a new image takes the walkcut that runs, or else the classical model. Raises `WalkcutError`."""
    image = _new_image()
    if running is not None:
        seconds = _seconds(lambda: _ask(running, image))
    elif settings.model == CLASSICAL:
        here = predictor()
        project, task = here.project_from_config(_CONFIG, {}), Task(0, {"image": image})
        seconds = _seconds(lambda: here.predict(task, project))
    else:
        what = f"how long {settings.model} takes for an image was not measured: walkcut does not run here"
        yield Finding("clock", "warning", what, "start `walkcut serve`, and run `walkcut doctor` again")
        return
    yield latency_finding(seconds, settings.predict_timeout)


def latency_finding(seconds: float, timeout: float) -> Finding:
    """What the time of one image means for requests that walkcut answers within `timeout` seconds."""
    limit = min(timeout, _PREDICT)
    fitting = math.floor(limit / max(seconds, 0.001))
    said = f"a new image of {_SIZE[1]}×{_SIZE[0]} takes {seconds:.1f} s, and Label Studio waits {_PREDICT:g} s"
    faster = "choose a smaller model, set WALKCUT_DEVICE=cuda, or give walkcut a machine of its own"
    if not fitting:
        said = f"{said}: none is done in time (WALKCUT_PREDICT_TIMEOUT={timeout:g})"
        return Finding("clock", "error", said, faster)
    said = f"{said}: one request, such as Retrieve predictions, has time for about {fitting}"
    if seconds > _SLOW:
        return Finding("clock", "warning", said, f"{faster}, or predict before annotators begin: {_AHEAD}")
    return Finding("clock", "ok", f"{said}; {_AHEAD} has no limit")


def _ask(running: ServerProbe, image: str) -> None:
    """Have an image predicted over HTTP, in no project. Raises `RequestError` where it is not."""
    tasks = [{"id": 0, "data": {"image": image}}]
    document = {"tasks": tasks, "project": None, "label_config": _CONFIG, "params": {"context": None}}
    if not running.post("/predict", document, timeout=_PREDICT)["results"][0]:
        raise RequestError(f"{running.url} predicts nothing for an image made for the purpose: see walkcut's log")


def _new_image() -> str:
    """An image of a few coloured fields with noise, as a data: URL; another each time, so that no cache knows it."""
    chance = np.random.default_rng(secrets.randbits(64))
    fields = chance.integers(0, 256, (6, 8, 3)).repeat(_SIZE[0] // 6, 0).repeat(_SIZE[1] // 8, 1)
    noisy = np.clip(fields + chance.normal(0, 4, fields.shape), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(noisy).save(file, "PNG", compress_level=1)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _seconds(act: Callable[[], object]) -> float:
    begin = time.monotonic()
    act()
    return time.monotonic() - begin
