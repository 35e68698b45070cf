"""walkcut as a model class of label-studio-ml 2.x, for those who deploy with `label-studio-ml start`.

That package is on no index: `pip install git+https://github.com/HumanSignal/label-studio-ml-backend`. A `model.py` is:

    from walkcut.serving.label_studio_ml import WalkcutModel, backend

    backend()  # load the model now: Label Studio waits 3 seconds for an answer to its set-up
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
from walkcut.interactive.segmenter import InteractiveSegmenter, answer_all
from walkcut.interactive.session import SessionStore
from walkcut.labelstudio import read_extra_params, read_task
from walkcut.serving.backend import Backend, background_learning, make_backend
from walkcut.settings import Settings, read_settings
from walkcut.storage import Event, project_id
from walkcut.telemetry.metrics import Metrics


@dataclass(frozen=True)
class Process:
    """What all requests of a process share: label-studio-ml makes a new model object for each."""

    settings: Settings
    backend: Backend
    interactive: InteractiveSegmenter


_one_at_a_time = threading.Lock()


def backend() -> Process:
    """The backend of the settings, made once; it learns in a thread of its own until the process ends."""
    with _one_at_a_time:
        return _made()


@lru_cache(maxsize=1)
def _made() -> Process:
    settings, until_the_end = read_settings(), ExitStack()
    made = until_the_end.enter_context(make_backend(settings))
    until_the_end.enter_context(background_learning(made.feedback_worker, settings.sync_interval, Metrics()))
    atexit.register(until_the_end.close)
    return Process(settings, made, InteractiveSegmenter(made.predictor, SessionStore()))


class WalkcutModel(LabelStudioMLBase):  # type: ignore[misc]  # it has no types
    """Predictions at all granularities, suggestions for annotators, and lessons, as `walkcut serve` gives them."""

    def setup(self) -> None:
        """Say which version predicts, as Label Studio asks at every set-up. Raises for an unusable labelling config."""
        if self.label_config:
            project = self._project()
            version = backend().backend.predictor.version(project, project.options.granularity)
            self.set("model_version", version)

    def set_extra_params(self, extra_params: object) -> None:
        """Keep a project's extra parameters, an object too, which the package itself refuses, and count with them."""
        super().set_extra_params(extra_params if isinstance(extra_params, str) else json.dumps(extra_params))
        self.setup()

    def predict(self, tasks: Sequence[Mapping[str, Any]], context: object = None, **_login: object) -> ModelResponse:
        """A prediction per granularity for each task, the default last, or one with what an annotator asked for."""
        process, project = backend(), self._project()
        documents = [read_task(task) for task in tasks]
        if context is not None:
            suggested = answer_all(process.interactive, documents, project, context)
            return ModelResponse(predictions=[each.as_json() for each in suggested])
        deadline = Deadline(process.settings.predict_timeout)
        predicted = predict_all(process.backend.predictor, documents, project, deadline)
        return ModelResponse(predictions=[[each.as_json() for each in of_task] for of_task in predicted])

    def fit(self, event: str, data: Mapping[str, Any], **_more: object) -> dict[str, str]:
        """Keep an event, on disk when this returns; its lesson is learned right after, since Label Studio waits 1 s."""
        body = {"action": event, **data}
        backend().backend.store.enqueue(Event(event, project_id(data.get("project")), body))
        return {"status": "stored"}

    def _project(self) -> Project:
        """The project as its annotators taught it to be; its labelling config is kept for the command line."""
        parts, number = backend().backend, project_id(self.project_id)
        extra_params = read_extra_params(self.get("extra_params"))
        project = parts.feedback_worker.project(number, self.label_config, extra_params)
        if number:
            parts.store.save_setup(number, self.label_config, extra_params)
        return project
