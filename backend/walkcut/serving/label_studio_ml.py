"""walkcut as a model class of label-studio-ml 2.x, for deployments with `label-studio-ml start`.

That package is not on PyPI: `pip install git+https://github.com/HumanSignal/label-studio-ml-backend`. A `model.py` is:

    from walkcut.serving.label_studio_ml import WalkcutModel, backend

    backend()  # loads the model now: Label Studio waits 3 seconds for an answer to its set-up
"""

import atexit
import json
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from label_studio_ml.model import LabelStudioMLBase
from label_studio_ml.response import ModelResponse

from walkcut.images import Deadline
from walkcut.inference.predictor import predict_all
from walkcut.inference.project import Project
from walkcut.interactive.interactive_segmenter import InteractiveSegmenter, answer_all
from walkcut.interactive.session import SessionStore
from walkcut.labelstudio.tasks import parse_project_id, read_extra_params, read_task
from walkcut.serving.backend import Backend, background_learning, make_backend
from walkcut.settings import Settings, read_settings
from walkcut.storage import Event
from walkcut.telemetry.metrics import Metrics


@dataclass(frozen=True)
class Process:
    """The parts that all requests of a process share: label-studio-ml makes a new model object for each request."""

    settings: Settings
    backend: Backend
    interactive: InteractiveSegmenter


_lock = threading.Lock()


def backend() -> Process:
    """Return the backend of the settings, made once; it learns in a thread until the process ends."""
    with _lock:
        return _make_process()


@lru_cache(maxsize=1)
def _make_process() -> Process:
    settings, at_exit = read_settings(), ExitStack()
    backend = at_exit.enter_context(make_backend(settings))
    at_exit.enter_context(background_learning(backend.feedback_worker, settings.sync_interval, Metrics()))
    atexit.register(at_exit.close)
    return Process(settings, backend, InteractiveSegmenter(backend.predictor, SessionStore()))


class WalkcutModel(LabelStudioMLBase):  # type: ignore[misc]  # it has no types
    """Predictions at all granularities, answers to annotators, and learning, as with `walkcut serve`."""

    def setup(self) -> None:
        """Set the model version, as Label Studio asks at each set-up. Raises `WalkcutError` for an unusable config."""
        if self.label_config:
            project = self._project()
            version = backend().backend.predictor.version(project, project.options.granularity)
            self.set("model_version", version)

    def set_extra_params(self, extra_params: object) -> None:
        """Save a project's extra parameters, even an object, which the package refuses, and apply them."""
        super().set_extra_params(extra_params if isinstance(extra_params, str) else json.dumps(extra_params))
        self.setup()

    def predict(self, tasks: Sequence[Mapping[str, Any]], context: object = None, **_login: object) -> ModelResponse:
        """Return predictions at each granularity, the default last, or answers to an annotator's `context`."""
        process, project = backend(), self._project()
        parsed = [read_task(task) for task in tasks]
        if context is not None:
            answers = answer_all(process.interactive, parsed, project, context)
            return ModelResponse(predictions=[answer.as_json() for answer in answers])
        results = predict_all(process.backend.predictor, parsed, project, Deadline(process.settings.predict_timeout))
        return ModelResponse(
            predictions=[[prediction.as_json() for prediction in predictions] for predictions in results]
        )

    def fit(self, event: str, data: Mapping[str, Any], **_more: object) -> dict[str, str]:
        """Store an event on disk, to be learned from later: Label Studio waits only 1 s."""
        body = {"action": event, **data}
        backend().backend.store.enqueue(Event(event, parse_project_id(data.get("project")), body))
        return {"status": "stored"}

    def _project(self) -> Project:
        """Return the project with its profile, and save its set-up for the command line."""
        parts, project_id = backend().backend, parse_project_id(self.project_id)
        extra_params = read_extra_params(self.get("extra_params"))
        project = parts.feedback_worker.project(project_id, self.label_config, extra_params)
        if project_id:
            parts.store.save_setup(project_id, self.label_config, extra_params)
        return project
