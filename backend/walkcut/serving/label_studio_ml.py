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
from functools import lru_cache
from typing import Any

from label_studio_ml.model import LabelStudioMLBase
from label_studio_ml.response import ModelResponse

from walkcut.images import Deadline
from walkcut.inference.predictor import predict_all
from walkcut.inference.project import Project
from walkcut.interactive.interactive_segmenter import answer_all
from walkcut.labelstudio.tasks import parse_project_id, read_extra_params, read_task
from walkcut.serving.backend import Backend, background_learning, make_backend
from walkcut.serving.webhooks import save_event
from walkcut.settings import read_settings
from walkcut.telemetry.metrics import Metrics

_lock = threading.Lock()


def backend() -> Backend:
    """Return the backend of the settings, made once; it learns in a thread until the process ends.

    label-studio-ml makes a new model object for each request: they all use this one.
    """
    with _lock:
        return _make_backend()


@lru_cache(maxsize=1)
def _make_backend() -> Backend:
    settings, at_exit = read_settings(), ExitStack()
    backend = at_exit.enter_context(make_backend(settings))
    at_exit.enter_context(background_learning(backend.feedback_worker, settings, Metrics()))
    atexit.register(at_exit.close)
    return backend


class WalkcutModel(LabelStudioMLBase):  # type: ignore[misc]  # it has no types
    """Predictions at all granularities, answers to annotators, and learning, as with `walkcut serve`."""

    def setup(self) -> None:
        """Set the model version, as Label Studio asks at each set-up. Raises `WalkcutError` for an unusable config."""
        if self.label_config:
            project = self._project()
            version = backend().predictor.version(project, project.options.granularity)
            self.set("model_version", version)

    def set_extra_params(self, extra_params: object) -> None:
        """Save a project's extra parameters, even an object, which the package refuses, and apply them."""
        super().set_extra_params(extra_params if isinstance(extra_params, str) else json.dumps(extra_params))
        self.setup()

    def predict(self, tasks: Sequence[Mapping[str, Any]], context: object = None, **_login: object) -> ModelResponse:
        """Return predictions at each granularity, the default last, or answers to an annotator's `context`."""
        parts, project = backend(), self._project()
        parsed = [read_task(task) for task in tasks]
        if context is not None:
            answers = answer_all(parts.interactive, parsed, project, context)
            return ModelResponse(predictions=[answer.as_json() for answer in answers])
        results = predict_all(parts.predictor, parsed, project, Deadline(parts.settings.predict_timeout))
        return ModelResponse(
            predictions=[[prediction.as_json() for prediction in predictions] for predictions in results]
        )

    def fit(self, event: str, data: Mapping[str, Any], **_more: object) -> dict[str, str]:
        """Save the annotation of an event, to be learned from later: Label Studio waits only 1 s."""
        parts, project_id = backend(), parse_project_id(data.get("project"))
        is_used = save_event(parts.store, event, project_id, data, learning=parts.settings.learning)
        return {"status": "stored" if is_used else "ignored"}

    def _project(self) -> Project:
        """Return the project with its profile, and save its set-up for the command line."""
        extra_params = read_extra_params(self.get("extra_params"))
        return backend().projects.set_up(parse_project_id(self.project_id), self.label_config, extra_params)
