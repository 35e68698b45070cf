"""The ML backend that Label Studio talks to: HTTP only."""

import logging
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from flask import Flask, Response, request
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from walkcut.errors import RequestError, StoreError
from walkcut.images import Deadline
from walkcut.inference.predictor import Predictor, predict_all
from walkcut.inference.project import Project
from walkcut.interactive.segmenter import InteractiveSegmenter, answer_all
from walkcut.interactive.session import SessionStore
from walkcut.labelstudio import Task, read_extra_params, read_object, read_tasks
from walkcut.serving.feedback import FeedbackWorker
from walkcut.serving.middleware import bind_log_context, instrument, register_error_handlers, require_auth
from walkcut.settings import Settings
from walkcut.storage import Event, ProjectStore, project_id
from walkcut.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

_MOST_LOGGED = 20  # tasks of a request
_SPARE_THREADS = 4  # for /health and /setup while all others predict
_BATCH_THREADS = 4  # for tasks that nobody waits for: they wait for one model anyway


def create_app(
    predictor: Predictor,
    feedback_worker: FeedbackWorker,
    store: ProjectStore,
    settings: Settings,
    metrics: Metrics | None = None,
) -> Flask:
    """The backend's WSGI application."""
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
    """What can be asked without a project."""

    @app.get("/")
    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "UP", "model_class": "walkcut"}

    @app.get("/metrics")
    def prometheus() -> Response:
        return Response(generate_latest(metrics.registry), content_type=CONTENT_TYPE_LATEST)


def _add_readiness_route(app: Flask, predictor: Predictor, store: ProjectStore, settings: Settings) -> None:
    """Whether new images can be answered: a process that cannot may still be alive, as /health tells.

    Everybody may ask; the reasons are told to those who show credentials, where they are set, and to the log.
    """

    @app.get("/ready")
    def ready() -> tuple[dict[str, Any], int]:
        troubles = {
            "model": predictor.tree_service.unavailable_reason,
            "database": _database_trouble(store),
            "state folder": _folder_trouble(settings.state_dir),
        }
        reasons = [
            f"{part}: {unavailable_reason}" for part, unavailable_reason in troubles.items() if unavailable_reason
        ]
        if not reasons:
            return {"status": "READY"}, 200
        log.warning("not ready: %s", "; ".join(reasons))
        told = settings.credentials.accepts(request.headers.get("Authorization", ""))
        return {"status": "NOT READY"} | ({"reasons": reasons} if told else {}), 503


def _database_trouble(store: ProjectStore) -> str:
    """Why the database cannot be asked; empty where it can."""
    try:
        store.learning("")
    except StoreError as error:
        log.warning("%s", error)
        return "it does not answer"
    return ""


def _folder_trouble(folder: Path) -> str:
    """Why nothing can be written into a folder; empty where it can."""
    try:
        with TemporaryFile(dir=folder) as file:
            file.write(b"walkcut")
    except OSError as error:
        return f"it cannot be written ({error.strerror})"
    return ""


def _add_project_routes(
    app: Flask, predictor: Predictor, feedback_worker: FeedbackWorker, store: ProjectStore, metrics: Metrics
) -> None:
    """What Label Studio tells of a project."""
    offered: dict[str, list[str]] = {}

    @app.post("/setup")
    def set_up() -> dict[str, str]:
        body = _json_object()
        extra_params = read_extra_params(body.get("extra_params"))
        label_config, number = _label_config(body, "schema"), _project(body)
        project = feedback_worker.project(number, label_config, extra_params)
        store.save_setup(number, label_config, extra_params)
        predictor.register_label_studio(str(body.get("hostname") or ""), str(body.get("access_token") or ""))
        versions = [predictor.version(project, granularity) for granularity in project.options.granularities]
        offered[number] = versions
        return {"model_version": versions[-1]}

    @app.get("/versions")
    def list_versions() -> dict[str, list[str]]:
        return {"versions": sorted({version for versions in offered.copy().values() for version in versions})}

    @app.post("/webhook")
    def webhook() -> dict[str, str]:
        body = _json_object()
        action = "".join(filter(str.isprintable, str(body.get("action", ""))))[:64]
        try:
            store.enqueue(Event(action, _project(body), body))
        except StoreError:
            metrics.events.labels("lost").inc()
            feedback_worker.request_sync()
            log.error("%s is lost, unless a comparison with Label Studio finds it", action)  # noqa: TRY400
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
    """Predictions. Some threads are kept free, since Label Studio takes a slow /health for a dead backend.

    Annotators do not wait behind batches of tasks.
    """
    interactive = InteractiveSegmenter(predictor, SessionStore())
    batches = threading.BoundedSemaphore(_BATCH_THREADS)
    annotators = threading.BoundedSemaphore(settings.threads - _BATCH_THREADS - _SPARE_THREADS)

    @app.post("/predict")
    def predict() -> dict[str, list[Any]]:
        body = _json_object()
        tasks, context, label_config = read_tasks(body), _context(body), _label_config(body, "label_config")
        bind_log_context(tasks=",".join(str(task.id) for task in tasks[:_MOST_LOGGED]))
        who = "annotator" if context is not None or len(tasks) == 1 else "batch"  # of one task: somebody opens it
        free = batches if who == "batch" else annotators
        if not free.acquire(blocking=False):
            log.warning("busy: %d tasks handed back, Label Studio asks for them again", len(tasks))
            metrics.tasks.labels("busy").inc(len(tasks))
            return {"results": [[] if context is None else {"result": []} for _ in tasks]}
        try:
            with metrics.predicting.track_inprogress(), metrics.predicted.labels(who).time():
                number = _project(body)
                project = feedback_worker.project(number, label_config, store.extra_params(number))
                if context is not None:
                    return {"results": [each.as_json() for each in answer_all(interactive, tasks, project, context)]}
                return {"results": predicted(tasks, project)}
        finally:
            free.release()

    def predicted(tasks: Sequence[Task], project: Project) -> list[list[dict[str, Any]]]:
        found = predict_all(predictor, tasks, project, Deadline(settings.predict_timeout))
        metrics.tasks.labels("predicted").inc(sum(map(bool, found)))
        metrics.tasks.labels("failed").inc(sum(not predictions for predictions in found))
        return [[each.as_json() for each in predictions] for predictions in found]


def _context(body: dict[str, Any]) -> object:
    """What an annotator did to ask; `None` where no annotator waits."""
    params = body.get("params")
    return params.get("context") if isinstance(params, dict) else None


def _json_object() -> dict[str, Any]:
    """The request's JSON object. Raises `RequestError` for anything else."""
    return read_object(request.get_data(cache=False))


def _label_config(body: dict[str, Any], key: str) -> str:
    """The labelling config of a request."""
    config = body.get(key)
    if not isinstance(config, str):
        raise RequestError(f'the request needs "{key}", the project\'s labelling config')
    return config


def _project(body: Mapping[str, Any]) -> str:
    """The number of a request's project, of which the log's lines tell from now on."""
    number = project_id(body.get("project"))
    bind_log_context(project=number)
    return number
