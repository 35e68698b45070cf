"""Middleware of every request: an id, the log, metrics, authentication, and errors as JSON."""

import logging
import re
import secrets
import time
import unicodedata
from contextlib import ExitStack
from threading import Lock

from flask import Flask, Response, jsonify, request
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from walkcut.auth import is_browser_request, is_known_host
from walkcut.errors import BUG, BusyError, WalkcutError, problem_text
from walkcut.settings import Settings
from walkcut.telemetry.failures import count_failures, record_failure
from walkcut.telemetry.logs import log_context
from walkcut.telemetry.metrics import Metrics
from walkcut.telemetry.spans import record_spans, timer

log = logging.getLogger(__name__)

_REQUEST_ID = re.compile(r"[\w.-]{1,64}", re.ASCII)
_HOST_NAME, _PORT = re.compile(r"[\w.-]{1,80}", re.ASCII), re.compile(r":[0-9]{0,5}$")
_STACK, _ID, _BEGIN = "walkcut.stack", "walkcut.id", "walkcut.begin"  # in a request's WSGI environment
_PUBLIC_ENDPOINTS = {"health", "ready"}  # without credentials
_POLLED = {"health", "ready", "prometheus"}
_MAX_PHRASE = 400  # characters
_PLAIN = str.maketrans({"<": "[", ">": "]", "&": "and", "×": "x", "‘": "'", "’": "'", "–": "-", "…": "..."})


class FailureLog:
    """The number of failed tasks and requests since the start, and the last failure, by the name of the error's class.

    Counted in the `metrics` too; safe to share between threads.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._last: dict[str, tuple[int, str]] = {}
        self._lock = Lock()

    def count(self, error: Exception) -> None:
        """Count a failure."""
        self._metrics.count_failure(error)
        name = type(error).__name__
        with self._lock:
            self._last[name] = self._last.get(name, (0, ""))[0] + 1, problem_text(error)

    def summary(self) -> list[str]:
        """Return a line for each class of failures.

        >>> failures = FailureLog(Metrics())
        >>> failures.count(BusyError("ask again"))
        >>> failures.summary()
        ['1 BusyError, the last: ask again']
        """
        with self._lock:
            return [f"{count} {name}, the last: {last}" for name, (count, last) in self._last.items()]


def instrument(app: Flask, metrics: Metrics, failures: FailureLog) -> None:
    """Count, time and log each request, with the id that the caller chose or a random one."""

    @app.before_request
    def begin() -> None:
        chosen = request.headers.get("X-Request-ID", "")
        request_id = chosen if _REQUEST_ID.fullmatch(chosen) else secrets.token_hex(8)
        stack = ExitStack()
        stack.enter_context(log_context(request_id=request_id, endpoint=_endpoint()))
        stack.enter_context(record_spans(timer(metrics.record_stage)))
        stack.enter_context(count_failures(failures.count))
        # Not a span: that needs one block, and a request begins and ends in two hooks.
        request.environ |= {_STACK: stack, _ID: request_id, _BEGIN: time.monotonic()}

    @app.after_request
    def end(response: Response) -> Response:
        seconds = time.monotonic() - request.environ[_BEGIN]
        metrics.requests.labels(_endpoint(), str(response.status_code)).inc()
        metrics.seconds.labels(_endpoint()).observe(seconds)
        response.headers["X-Request-ID"] = request.environ[_ID]
        level = logging.DEBUG if _endpoint() in _POLLED and response.status_code == 200 else logging.INFO
        log.log(level, "%s %s: %d in %.3f s", request.method, _endpoint(), response.status_code, seconds)
        return response

    @app.teardown_request
    def close_context(_error: BaseException | None) -> None:
        request.environ[_STACK].close()


def _endpoint() -> str:
    """Return the name of the request's endpoint; "unknown" for any path without one."""
    return request.endpoint or "unknown"


def bind_log_context(**fields: str) -> None:
    """Add fields to all further lines that this request logs."""
    stack: ExitStack = request.environ[_STACK]
    stack.enter_context(log_context(**fields))


def require_known_host(app: Flask, settings: Settings) -> None:
    """Refuse requests to a name that is not walkcut's; /health, which tells nothing, answers to any.

    Label Studio shows no reason if /health fails, but that of the /setup that follows.
    """

    @app.before_request
    def check_host() -> Response | None:
        host = request.headers.get("Host", "")
        if request.endpoint == "health" or is_known_host(host, (*settings.host_names, settings.host)):
            return None
        name = _PORT.sub("", host)
        remedy = "it is no name of a host: call walkcut by its name or address"
        if _HOST_NAME.fullmatch(name):
            remedy = f"if this is its name, add it to WALKCUT_HOST_NAMES, as in WALKCUT_HOST_NAMES={name}"
        log.warning("refused a request to the host %r: %s", host[:80], remedy)
        return _refusal(f"walkcut does not answer to the name {name[:80]!r}: {remedy}", 403)


def require_auth(app: Flask, settings: Settings) -> None:
    """Refuse pages in browsers and, if credentials are set, callers without them; /health and /ready are open."""

    @app.before_request
    def authorise() -> Response | None:
        if request.endpoint in _PUBLIC_ENDPOINTS:
            return None
        if is_browser_request(request.headers.get("Origin"), request.headers.get("Sec-Fetch-Site")):
            return _refusal("pages in a browser may not call walkcut", 403)
        if settings.credentials.accepts(request.headers.get("Authorization", "")):
            return None
        response = _refusal("user name and password are required: set them for this backend in Label Studio", 401)
        response.headers["WWW-Authenticate"] = 'Basic realm="walkcut"'
        return response


def register_error_handlers(app: Flask, settings: Settings) -> None:
    """Answer errors as JSON with a remedy, without a traceback; walkcut's own bugs are logged with theirs."""

    too_large = (
        f"the request is larger than {settings.max_body_mb} MB: ask for fewer tasks at a time, run "
        "`walkcut prelabel --project`, or set WALKCUT_MAX_BODY_MB to more"
    )

    @app.errorhandler(Exception)
    def answer(error: Exception) -> Response:
        if isinstance(error, RequestEntityTooLarge):
            log.warning("%s %s: %s", request.method, request.path, too_large)
            return _refusal(too_large, 413)
        if isinstance(error, HTTPException):
            return _refusal(error.description or error.name, error.code or 500)
        record_failure(error)
        if isinstance(error, BusyError):
            log.error("%s %s: %s", request.method, request.path, error)
            return _refusal("walkcut cannot answer now: try again; its log has the details", 503)
        if isinstance(error, WalkcutError):
            log.warning("%s %s: %s", request.method, request.path, error)
            return _refusal(str(error), 400)
        log.error("%s %s failed", request.method, request.path, exc_info=error)
        return _refusal(f"{BUG}; its log has the details", 500)


def _refusal(message: str, status: int) -> Response:
    """Return an error as JSON, and as the reason phrase of the status line: Label Studio shows its users that alone."""
    response = jsonify(error=message)
    response.status = f"{status} {reason_phrase(message)}"
    return response


def reason_phrase(message: str) -> str:
    """Return a message as one line of ASCII; in brackets for tags, since Label Studio shows it as HTML.

    >>> reason_phrase("<Label/> is missing: see 640×480 & more")
    '[Label/] is missing: see 640x480 and more'
    """
    plain = unicodedata.normalize("NFKD", message).translate(_PLAIN).encode("ascii", "ignore").decode()
    return " ".join("".join(filter(str.isprintable, " ".join(plain.split()))).split())[:_MAX_PHRASE] or "refused"
