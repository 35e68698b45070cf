"""The ML backend's HTTP interface to Label Studio."""

import logging
import threading
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from flask import Flask, Response, request
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from walkcut.errors import RequestError, StoreError
from walkcut.images import Deadline
from walkcut.inference.predictor import Predictor, predict_all
from walkcut.inference.project import Project
from walkcut.interactive.interactive_segmenter import InteractiveSegmenter, answer_all
from walkcut.interactive.session import SessionStore
from walkcut.labelstudio.json_input import read_object
from walkcut.labelstudio.tasks import Task, parse_project_id, read_extra_params, read_tasks
from walkcut.serving.feedback_worker import FeedbackWorker
from walkcut.serving.middleware import bind_log_context, instrument, register_error_handlers, require_auth
from walkcut.settings import Settings
from walkcut.storage import Event, ProjectStore
from walkcut.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

_MAX_LOGGED = 20  # tasks of a request
_SPARE_THREADS = 4  # for /health and /setup while all others predict
_BATCH_THREADS = 4  # for batches of tasks, which wait for the one model anyway


def create_app(
    predictor: Predictor,
    feedback_worker: FeedbackWorker,
    store: ProjectStore,
    settings: Settings,
    metrics: Metrics | None = None,
) -> Flask:
    """Make the backend's WSGI application."""
    app = Flask("walkcut", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_mb * 1_000_000
    metrics = metrics or Metrics()
    metrics.backlog.set_function(lambda: feedback_worker.backlog)
    instrument(app, metrics)
    require_auth(app, settings)
    register_error_handlers(app, settings)
    _add_status_routes(app, metrics)
    _add_readiness_route(app, predictor, store, settings)
    _add_project_routes(app, predictor, feedback_worker, store, metrics)
    _add_predict_route(app, predictor, feedback_worker, store, settings, metrics)
    return app


def _add_status_routes(app: Flask, metrics: Metrics) -> None:
    @app.get("/")
    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "UP", "model_class": "walkcut"}

    @app.get("/metrics")
    def prometheus() -> Response:
        return Response(generate_latest(metrics.registry), content_type=CONTENT_TYPE_LATEST)


def _add_readiness_route(app: Flask, predictor: Predictor, store: ProjectStore, settings: Settings) -> None:
    """Add /ready: whether new images can be answered, as /health does not say.

    It is open to everybody; the reasons go to the log, and to callers with credentials if these are required.
    """

    @app.get("/ready")
    def ready() -> tuple[dict[str, Any], int]:
        checks = {
            "model": predictor.tree_service.unavailable_reason,
            "database": _database_problem(store),
            "state folder": _folder_problem(settings.state_dir),
        }
        reasons = [f"{part}: {problem}" for part, problem in checks.items() if problem]
        if not reasons:
            return {"status": "READY"}, 200
        log.warning("not ready: %s", "; ".join(reasons))
        is_authorised = settings.credentials.accepts(request.headers.get("Authorization", ""))
        return {"status": "NOT READY"} | ({"reasons": reasons} if is_authorised else {}), 503


def _database_problem(store: ProjectStore) -> str:
    """Return why the database is unavailable; empty if it is available."""
    try:
        store.learning("")
    except StoreError as error:
        log.warning("%s", error)
        return "it does not answer"
    return ""


def _folder_problem(folder: Path) -> str:
    """Return why files cannot be written into a folder; empty if they can."""
    try:
        with TemporaryFile(dir=folder) as file:
            file.write(b"walkcut")
    except OSError as error:
        return f"it cannot be written ({error.strerror})"
    return ""


def _add_project_routes(
    app: Flask, predictor: Predictor, feedback_worker: FeedbackWorker, store: ProjectStore, metrics: Metrics
) -> None:
    """Add the routes by which Label Studio sets up projects and reports their events."""
    versions: dict[str, list[str]] = {}  # by project

    @app.post("/setup")
    def set_up() -> dict[str, str]:
        body = _json_object()
        extra_params = read_extra_params(body.get("extra_params"))
        label_config, project_id = _label_config(body, "schema"), _project_id(body)
        project = feedback_worker.project(project_id, label_config, extra_params)
        store.save_setup(project_id, label_config, extra_params)
        predictor.register_label_studio(str(body.get("hostname") or ""), str(body.get("access_token") or ""))
        versions[project_id] = [predictor.version(project, level) for level in project.options.granularities]
        return {"model_version": versions[project_id][-1]}

    @app.get("/versions")
    def list_versions() -> dict[str, list[str]]:
        return {"versions": sorted(set(chain.from_iterable(versions.copy().values())))}

    @app.post("/webhook")
    def webhook() -> dict[str, str]:
        body = _json_object()
        action = "".join(filter(str.isprintable, str(body.get("action", ""))))[:64]
        try:
            store.enqueue(Event(action, _project_id(body), body))
        except StoreError:
            metrics.events.labels("lost").inc()
            feedback_worker.request_sync()
            log.error("%s not stored; a sync with Label Studio may recover it", action)  # noqa: TRY400
            raise
        metrics.events.labels("stored").inc()
        return {"status": "stored"}


def _add_predict_route(
    app: Flask,
    predictor: Predictor,
    feedback_worker: FeedbackWorker,
    store: ProjectStore,
    settings: Settings,
    metrics: Metrics,
) -> None:
    """Add /predict, with separate limits of threads for annotators and for batches of tasks.

    The limits leave threads for /health: Label Studio treats a backend whose /health is slow as dead.
    """
    interactive = InteractiveSegmenter(predictor, SessionStore())
    threads = {
        "batch": threading.BoundedSemaphore(_BATCH_THREADS),
        "annotator": threading.BoundedSemaphore(settings.threads - _BATCH_THREADS - _SPARE_THREADS),
    }

    @app.post("/predict")
    def predict() -> dict[str, list[Any]]:
        body = _json_object()
        tasks, context, label_config = read_tasks(body), _context(body), _label_config(body, "label_config")
        bind_log_context(tasks=",".join(str(task.id) for task in tasks[:_MAX_LOGGED]))
        caller = "annotator" if context is not None or len(tasks) == 1 else "batch"  # one task: somebody opens it
        if not threads[caller].acquire(blocking=False):
            log.warning("busy: %d tasks returned empty, Label Studio asks for them again", len(tasks))
            metrics.tasks.labels("busy").inc(len(tasks))
            return {"results": [[] if context is None else {"result": []} for _ in tasks]}
        try:
            with metrics.predicting.track_inprogress(), metrics.predicted.labels(caller).time():
                project_id = _project_id(body)
                project = feedback_worker.project(project_id, label_config, store.extra_params(project_id))
                if context is None:
                    return {"results": predict_tasks(tasks, project)}
                answers = answer_all(interactive, tasks, project, context)
                return {"results": [answer.as_json() for answer in answers]}
        finally:
            threads[caller].release()

    def predict_tasks(tasks: Sequence[Task], project: Project) -> list[list[dict[str, Any]]]:
        results = predict_all(predictor, tasks, project, Deadline(settings.predict_timeout))
        failed = sum(not predictions for predictions in results)
        metrics.tasks.labels("predicted").inc(len(results) - failed)
        metrics.tasks.labels("failed").inc(failed)
        return [[prediction.as_json() for prediction in predictions] for predictions in results]


def _context(body: dict[str, Any]) -> object:
    """Return the context of an annotator's call; `None` if no annotator waits."""
    params = body.get("params")
    return params.get("context") if isinstance(params, dict) else None


def _json_object() -> dict[str, Any]:
    """Return the request's JSON object. Raises `RequestError` for anything else."""
    return read_object(request.get_data(cache=False))


def _label_config(body: dict[str, Any], key: str) -> str:
    """Return the labelling config of a request. Raises `RequestError` if it is missing."""
    config = body.get(key)
    if not isinstance(config, str):
        raise RequestError(f'the request needs "{key}", the project\'s labelling config')
    return config


def _project_id(body: Mapping[str, Any]) -> str:
    """Return the id of a request's project, and add it to the log's context."""
    project_id = parse_project_id(body.get("project"))
    bind_log_context(project=project_id)
    return project_id
