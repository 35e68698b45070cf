"""The ML backend that Label Studio talks to: HTTP only."""

import hmac
import logging
import threading
import time
from collections.abc import Sequence
from typing import Any

from flask import Flask, Response, jsonify, request
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from werkzeug.exceptions import HTTPException

from walkcut.annotator import Annotator, Project, predict_all
from walkcut.errors import RequestError, WalkcutError
from walkcut.images import Deadline
from walkcut.labelstudio import Task, read_extra_params, read_tasks
from walkcut.learner import Learner
from walkcut.screen import Screens
from walkcut.settings import Settings
from walkcut.store import Event, ProjectStore, project_id
from walkcut.suggestions import Suggester, suggest_all

log = logging.getLogger(__name__)

_MOST_BODY_BYTES = 256 << 20  # a batch of annotated tasks holds megabytes of run-length codes
_SPARE_THREADS = 4  # for /health and /setup while all others predict
_BATCH_THREADS = 4  # for tasks that nobody waits for: they wait for one model anyway


class Metrics:
    """What the server counts, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("walkcut_requests_total", "Requests", ["endpoint", "status"], registry=self.registry)
        self.seconds = Histogram(
            "walkcut_request_seconds",
            "Time to answer",
            ["endpoint"],
            registry=self.registry,
            buckets=(0.01, 0.05, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 100),
        )
        self.tasks = Counter("walkcut_tasks_total", "Tasks asked for", ["outcome"], registry=self.registry)
        self.predicting = Gauge("walkcut_predicting", "Predict requests being answered", registry=self.registry)


def create_app(annotator: Annotator, learner: Learner, store: ProjectStore, settings: Settings) -> Flask:
    """The backend's WSGI application."""
    app = Flask("walkcut", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = _MOST_BODY_BYTES
    metrics = Metrics()
    _watch(app, metrics)
    _protect(app, settings)
    _answer_errors(app)
    _add_status_routes(app, metrics)
    _add_project_routes(app, annotator, learner, store)
    _add_predict_route(app, annotator, learner, store, settings, metrics)
    return app


def _add_status_routes(app: Flask, metrics: Metrics) -> None:
    """What can be asked without a project."""

    @app.get("/")
    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "UP", "model_class": "walkcut"}

    @app.get("/metrics")
    def prometheus() -> Response:
        return Response(generate_latest(metrics.registry), content_type=CONTENT_TYPE_LATEST)


def _add_project_routes(app: Flask, annotator: Annotator, learner: Learner, store: ProjectStore) -> None:
    """What Label Studio tells of a project."""
    offered: dict[str, list[str]] = {}

    @app.post("/setup")
    def set_up() -> dict[str, str]:
        body = _json_object()
        extra_params = read_extra_params(body.get("extra_params"))
        label_config, number = _label_config(body, "schema"), project_id(body.get("project"))
        project = learner.project(number, label_config, extra_params)
        store.remember_setup(number, label_config, extra_params)
        annotator.introduce(str(body.get("hostname") or ""), str(body.get("access_token") or ""))
        versions = [annotator.version(project, granularity) for granularity in project.options.granularities]
        offered[number] = versions
        return {"model_version": versions[-1]}

    @app.get("/versions")
    def list_versions() -> dict[str, list[str]]:
        return {"versions": sorted({version for versions in offered.copy().values() for version in versions})}

    @app.post("/webhook")
    def webhook() -> dict[str, str]:
        body = _json_object()
        action = "".join(filter(str.isprintable, str(body.get("action", ""))))
        store.record(Event(action[:64], project_id(body.get("project")), body))
        return {"status": "stored"}


def _add_predict_route(
    app: Flask, annotator: Annotator, learner: Learner, store: ProjectStore, settings: Settings, metrics: Metrics
) -> None:
    """Predictions. Some threads are kept free, since Label Studio takes a slow /health for a dead backend.

    Annotators do not wait behind batches of tasks.
    """
    suggester = Suggester(annotator, Screens())
    batches = threading.BoundedSemaphore(_BATCH_THREADS)
    annotators = threading.BoundedSemaphore(settings.threads - _BATCH_THREADS - _SPARE_THREADS)

    @app.post("/predict")
    def predict() -> dict[str, list[Any]]:
        body = _json_object()
        tasks, context = read_tasks(body), _context(body)
        number = project_id(body.get("project"))
        project = learner.project(number, _label_config(body, "label_config"), store.extra_params(number))
        free = batches if context is None else annotators
        if not free.acquire(blocking=False):
            log.warning("busy: %d tasks handed back, Label Studio asks for them again", len(tasks))
            metrics.tasks.labels("busy").inc(len(tasks))
            return {"results": [[] if context is None else {"result": []} for _ in tasks]}
        try:
            with metrics.predicting.track_inprogress():
                if context is not None:
                    return {"results": [each.as_json() for each in suggest_all(suggester, tasks, project, context)]}
                return {"results": predicted(tasks, project)}
        finally:
            free.release()

    def predicted(tasks: Sequence[Task], project: Project) -> list[list[dict[str, Any]]]:
        found = predict_all(annotator, tasks, project, Deadline(settings.predict_timeout))
        metrics.tasks.labels("predicted").inc(sum(map(bool, found)))
        metrics.tasks.labels("failed").inc(sum(not predictions for predictions in found))
        return [[each.as_json() for each in predictions] for predictions in found]


def _context(body: dict[str, Any]) -> object:
    """What an annotator did to ask; `None` where no annotator waits."""
    params = body.get("params")
    return params.get("context") if isinstance(params, dict) else None


def _json_object() -> dict[str, Any]:
    """The request's JSON object. Raises `RequestError` for anything else."""
    body = request.get_json(force=True, silent=True)
    if not isinstance(body, dict):
        raise RequestError("the request's body must be a JSON object, as Label Studio sends it")
    return body


def _label_config(body: dict[str, Any], key: str) -> str:
    """The labelling config of a request."""
    config = body.get(key)
    if not isinstance(config, str):
        raise RequestError(f'the request needs "{key}", the project\'s labelling config')
    return config


def _watch(app: Flask, metrics: Metrics) -> None:
    """Count and time each request."""

    @app.before_request
    def begin() -> None:
        request.environ["walkcut.begin"] = time.monotonic()

    @app.after_request
    def end(response: Response) -> Response:
        endpoint = request.endpoint or "unknown"
        metrics.requests.labels(endpoint, str(response.status_code)).inc()
        metrics.seconds.labels(endpoint).observe(time.monotonic() - request.environ["walkcut.begin"])
        return response


def _protect(app: Flask, settings: Settings) -> None:
    """Ask for user name and password, where they are set, on every route but /health."""
    if not settings.basic_auth_user and not settings.basic_auth_pass:
        return

    @app.before_request
    def authorise() -> Response | None:
        if request.endpoint == "health" or _is_authorised(settings.basic_auth_user, settings.basic_auth_pass):
            return None
        response = jsonify(error="user name and password needed: set them on the backend in Label Studio")
        response.status_code = 401
        response.headers["WWW-Authenticate"] = 'Basic realm="walkcut"'
        return response


def _is_authorised(user: str, password: str) -> bool:
    """Whether the request carries these credentials, compared in constant time."""
    sent = request.authorization
    given = f"{sent.username}:{sent.password}" if sent is not None and sent.type == "basic" else ""
    return hmac.compare_digest(given.encode(), f"{user}:{password}".encode())


def _answer_errors(app: Flask) -> None:
    """Errors as JSON with a remedy, never with a traceback; what is not the caller's fault is logged in full."""

    @app.errorhandler(WalkcutError)
    def bad_request(error: WalkcutError) -> tuple[Response, int]:
        log.warning("%s %s: %s", request.method, request.path, error)
        return jsonify(error=str(error)), 400

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> tuple[Response, int]:
        return jsonify(error=error.description), error.code or 500

    @app.errorhandler(Exception)
    def defect(error: Exception) -> tuple[Response, int]:
        log.error("%s %s failed", request.method, request.path, exc_info=error)
        return jsonify(error="a defect of walkcut: its log has the details"), 500
