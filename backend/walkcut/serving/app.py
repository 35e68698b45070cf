"""The ML backend's HTTP interface to Label Studio."""

import logging
import threading
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from flask import Flask, Response, request
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from walkcut.errors import BusyError, RequestError, StoreError
from walkcut.images import Deadline
from walkcut.inference.predictor import predict_all
from walkcut.inference.project import Project
from walkcut.interactive.interactive_segmenter import answer_all
from walkcut.labelstudio.json_input import read_object
from walkcut.labelstudio.tasks import Task, parse_project_created, parse_project_id, read_extra_params, read_tasks
from walkcut.serving.backend import Backend
from walkcut.serving.bounded_calls import BoundedCalls
from walkcut.serving.middleware import (
    FailureLog,
    bind_log_context,
    instrument,
    register_error_handlers,
    require_auth,
    require_known_host,
)
from walkcut.serving.webhooks import save_event
from walkcut.telemetry.failures import record_failure
from walkcut.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

_MAX_LOGGED = 20  # tasks of a request
_MAX_VERSIONS = 100  # in an answer
_SPARE_THREADS = 4  # for /health and /setup while all others predict
_BATCH_THREADS = 4  # for batches of tasks, which wait for the one model anyway
_SAVE_S = 12.0  # that the database may take to save an event; SQLite waits 10 s for other writers


def create_app(backend: Backend, metrics: Metrics) -> Flask:
    """Make the backend's WSGI application."""
    settings = backend.settings
    app = Flask("walkcut", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_mb * 1_000_000
    metrics.pending.set_function(lambda: backend.feedback_worker.backlog.pending)
    metrics.set_aside.set_function(lambda: backend.feedback_worker.backlog.set_aside)
    failures = FailureLog(metrics)
    instrument(app, metrics, failures)
    require_known_host(app, settings)
    require_auth(app, settings)
    register_error_handlers(app, settings)
    views = _Views(backend, metrics, failures)
    app.get("/")(views.health)
    app.get("/health")(views.health)
    app.get("/metrics")(views.prometheus)
    app.get("/ready")(views.ready)
    app.get("/versions")(views.list_versions)
    app.post("/setup")(views.set_up)
    app.post("/webhook")(views.webhook)
    app.post("/predict")(views.predict)
    return app


class _Views:
    """One method for each route; its name is the route's name in logs and metrics."""

    def __init__(self, backend: Backend, metrics: Metrics, failures: FailureLog) -> None:
        self._backend, self._metrics, self._failures = backend, metrics, failures
        self._in_time = BoundedCalls(pause=0.0)
        # They leave threads for /health: Label Studio treats a backend whose /health is slow as dead.
        self._threads = {
            "batch": threading.BoundedSemaphore(_BATCH_THREADS),
            "annotator": threading.BoundedSemaphore(backend.settings.threads - _BATCH_THREADS - _SPARE_THREADS),
        }

    def health(self) -> dict[str, str]:
        return {"status": "UP", "model_class": "walkcut"}

    def prometheus(self) -> Response:
        return Response(generate_latest(self._metrics.registry), content_type=CONTENT_TYPE_LATEST)

    def ready(self) -> tuple[dict[str, Any], int]:
        """Return whether new images can be answered, as /health does not say, and what else does not work.

        While the database is unavailable images are answered, by what is known of their projects. The route is open to
        everybody; the reasons go to the log, and to callers with credentials if these are required, with the number of
        failures of each kind and the last of them.
        """
        settings = self._backend.settings
        unready = {
            "model": self._backend.predictor.tree_service.unavailable_reason,
            "state folder": _folder_problem(settings.state_dir),
        }
        problems = unready | {"database": self._database_problem()}
        reasons = [f"{part}: {problem}" for part, problem in problems.items() if problem]
        is_ready = not any(unready.values())
        if reasons:
            log.warning("%s: %s", "ready, with problems" if is_ready else "not ready", "; ".join(reasons))
        is_authorised = settings.credentials.accepts(request.headers.get("Authorization", ""))
        told = {"reasons": reasons, "failures": self._failures.summary()} if is_authorised else {}
        document = {"status": "READY" if is_ready else "NOT READY"} | {
            key: value for key, value in told.items() if value
        }
        return document, 200 if is_ready else 503

    def _database_problem(self) -> str:
        """Return why the database is unavailable, without details, which go to the log; empty if it is available."""
        if problem := self._backend.projects.database_problem():
            log.warning("%s", problem)
        return problem and "it does not answer: predictions go on, nothing is learned"

    def set_up(self) -> dict[str, str]:
        body = read_object(request.get_data(cache=False))
        extra_params = read_extra_params(body.get("extra_params"))
        hostname, token = str(body.get("hostname") or ""), str(body.get("access_token") or "")
        label_config = _label_config(body, "schema")
        self._backend.predictor.loader.register_label_studio(hostname, token)
        project_id = self._identify(body)
        project = self._backend.projects.set_up(project_id, label_config, extra_params)
        return {"model_version": self._backend.projects.versions(project)[-1]}

    def list_versions(self) -> dict[str, list[str]]:
        """Return the model versions of `?project=ID`, else of all projects: Label Studio does not name one."""
        project = request.args.get("project", "")
        project_id = parse_project_id(project)
        if project and not project_id:
            raise RequestError(f"{project[:40]!r} is no project: write its id in Label Studio, as in ?project=3")
        versions = self._backend.store.versions(project_id) if project_id else self._backend.store.all_versions()
        return {"versions": versions[:_MAX_VERSIONS]}

    def _identify(self, body: Mapping[str, Any]) -> str:
        """Return the id of a request's project. Raises `RequestError` for that of another Label Studio."""
        project_id = _project_id(body)
        self._backend.projects.identify(project_id, parse_project_created(body.get("project")))
        return project_id

    def webhook(self) -> dict[str, str]:
        body = read_object(request.get_data(cache=False))
        action = "".join(filter(str.isprintable, str(body.get("action", ""))))[:64]
        learning = self._backend.settings.learning
        try:
            save = partial(save_event, learning=learning)
            is_used = self._in_time(_SAVE_S, save, self._backend.store, action, _project_id(body), body)
        except StoreError:
            self._metrics.events.labels("lost").inc()
            self._backend.feedback_worker.synchronizer.request()
            log.error("%s not stored; a sync with Label Studio may recover it", action)  # noqa: TRY400
            raise
        status = "stored" if is_used else "ignored"
        self._metrics.events.labels(status).inc()
        return {"status": status}

    def predict(self) -> dict[str, list[Any]]:
        body = read_object(request.get_data(cache=False))
        tasks, context, label_config = read_tasks(body), _context(body), _label_config(body, "label_config")
        bind_log_context(tasks=",".join(str(task.id) for task in tasks[:_MAX_LOGGED]))
        caller = "annotator" if context is not None or len(tasks) == 1 else "batch"  # one task: somebody opens it
        if not self._threads[caller].acquire(blocking=False):
            log.warning("busy: %d tasks returned empty, Label Studio asks for them again", len(tasks))
            record_failure(BusyError(f"too many calls at once: {len(tasks)} tasks returned empty, for another call"))
            self._metrics.tasks.labels("busy").inc(len(tasks))
            return {"results": [[] if context is None else {"result": []} for _ in tasks]}
        try:
            with self._metrics.predicting.track_inprogress(), self._metrics.predicted.labels(caller).time():
                project = self._backend.projects.get(self._identify(body), label_config)
                if context is None:
                    return {"results": self._predict_tasks(tasks, project)}
                answers = answer_all(self._backend.interactive, tasks, project, context)
                return {"results": [answer.as_json() for answer in answers]}
        finally:
            self._threads[caller].release()

    def _predict_tasks(self, tasks: Sequence[Task], project: Project) -> list[list[dict[str, Any]]]:
        results = predict_all(self._backend.predictor, tasks, project, Deadline(self._backend.settings.predict_timeout))
        failed = sum(not predictions for predictions in results)
        self._metrics.tasks.labels("predicted").inc(len(results) - failed)
        self._metrics.tasks.labels("failed").inc(failed)
        return [[prediction.as_json() for prediction in predictions] for predictions in results]


def _folder_problem(folder: Path) -> str:
    """Return why files cannot be written into a folder, which is made if it was removed; empty if they can."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder) as file:
            file.write(b"walkcut")
    except OSError as error:
        return f"it cannot be written ({error.strerror})"
    return ""


def _context(body: dict[str, Any]) -> object:
    """Return the context of an annotator's call; `None` if no annotator waits."""
    params = body.get("params")
    return params.get("context") if isinstance(params, dict) else None


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
