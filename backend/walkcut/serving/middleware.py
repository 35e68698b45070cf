"""What happens around every request: an id, the log, metrics, credentials, and errors as JSON."""

import logging
import re
import secrets
import time
from contextlib import ExitStack

from flask import Flask, Response, jsonify, request
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from walkcut.auth import is_browser_request
from walkcut.errors import BusyError, WalkcutError
from walkcut.settings import Settings
from walkcut.telemetry.logs import log_context
from walkcut.telemetry.metrics import Metrics
from walkcut.telemetry.stages import count_failures, record_failure, record_spans

log = logging.getLogger(__name__)

_REQUEST_ID = re.compile(r"[\w.-]{1,64}", re.ASCII)
_STACK, _ID, _BEGIN = "walkcut.stack", "walkcut.id", "walkcut.begin"  # in a request's environment
_OPEN = {"health", "ready"}  # to everybody
_POLLED = {"health", "ready", "prometheus"}


def instrument(app: Flask, metrics: Metrics) -> None:
    """Count, time and log each request, under an id that the caller may have chosen."""

    @app.before_request
    def begin() -> None:
        chosen = request.headers.get("X-Request-ID", "")
        request_id = chosen if _REQUEST_ID.fullmatch(chosen) else secrets.token_hex(8)
        stack = ExitStack()
        stack.enter_context(log_context(request_id=request_id, endpoint=_endpoint()))
        stack.enter_context(record_spans(metrics.time_stage))
        stack.enter_context(count_failures(metrics.count_failure))
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
    def forget(_error: BaseException | None) -> None:
        request.environ[_STACK].close()


def _endpoint() -> str:
    """What was asked for; one name for all that there is not."""
    return request.endpoint or "unknown"


def bind_log_context(**about: str) -> None:
    """Have this request's lines in the log tell of these."""
    stack: ExitStack = request.environ[_STACK]
    stack.enter_context(log_context(**about))


def require_auth(app: Flask, settings: Settings) -> None:
    """Let in no page of a browser, and nobody without credentials, where they are set, but at /health and /ready."""

    @app.before_request
    def authorise() -> tuple[Response, int] | None:
        if request.endpoint in _OPEN:
            return None
        if is_browser_request(request.headers.get("Origin"), request.headers.get("Sec-Fetch-Site")):
            return jsonify(error="pages in a browser may not ask walkcut"), 403
        if settings.credentials.accepts(request.headers.get("Authorization", "")):
            return None
        response = jsonify(error="user name and password needed: set them on the backend in Label Studio")
        response.headers["WWW-Authenticate"] = 'Basic realm="walkcut"'
        return response, 401


def register_error_handlers(app: Flask, settings: Settings) -> None:
    """Errors as JSON with a remedy, never with a traceback; what is not the caller's fault is logged in full."""

    @app.errorhandler(WalkcutError)
    def bad_request(error: WalkcutError) -> tuple[Response, int]:
        record_failure(error)
        log.warning("%s %s: %s", request.method, request.path, error)
        return jsonify(error=str(error)), 400

    @app.errorhandler(BusyError)
    def not_now(error: BusyError) -> tuple[Response, int]:
        record_failure(error)
        log.error("%s %s: %s", request.method, request.path, error)
        return jsonify(error="walkcut cannot answer now: ask again; its log has the details"), 503

    @app.errorhandler(RequestEntityTooLarge)
    def too_large(_error: RequestEntityTooLarge) -> tuple[Response, int]:
        message = (
            f"the request is larger than {settings.max_body_mb} MB: ask for fewer tasks at a time, run "
            "`walkcut prelabel --project`, or set WALKCUT_MAX_BODY_MB to more"
        )
        log.warning("%s %s: %s", request.method, request.path, message)
        return jsonify(error=message), 413

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> tuple[Response, int]:
        return jsonify(error=error.description), error.code or 500

    @app.errorhandler(Exception)
    def defect(error: Exception) -> tuple[Response, int]:
        record_failure(error)
        log.error("%s %s failed", request.method, request.path, exc_info=error)
        return jsonify(error="a defect of walkcut: its log has the details"), 500
