"""A backend over a folder with a test client, and the requests that Label Studio sends."""

import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import waitress
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tests.builders.processes import wait_for
from tests.builders.scenes import data_url, png, quarters
from walkcut.backbones import Backbone, load_backbone
from walkcut.images import DecodeLimits, FetchPolicy, ImageLoader
from walkcut.inference.model import InProcessModel, TreeModel
from walkcut.inference.predictor import Predictor
from walkcut.inference.project import ProjectOptions
from walkcut.inference.tree_service import TreeService
from walkcut.interactive.interactive_segmenter import InteractiveSegmenter
from walkcut.interactive.session import SessionStore
from walkcut.segmentation.presets import PRESETS
from walkcut.segmentation.segmenter import Segmenter
from walkcut.serving.app import create_app
from walkcut.serving.backend import Backend as Parts
from walkcut.serving.feedback_worker import FeedbackWorker
from walkcut.serving.project_cache import ProjectCache
from walkcut.settings import Settings
from walkcut.storage import ProjectStore, TreeCache
from walkcut.telemetry.metrics import Metrics

BRUSH = '<BrushLabels name="b" toName="im"{}><Label value="Part"/></BrushLabels>'
CONFIG = f'<View><Image name="im" value="$photo"/>{BRUSH}</View>'
SETUP = {
    "project": "3.1795163936",
    "schema": CONFIG.format(""),
    "hostname": "http://localhost:8080",
    "extra_params": None,
}
IMAGE = data_url(png(quarters(30, 40)))


class Backend:
    """A backend over a folder, and a client for it."""

    def __init__(self, folder: Path, settings: Settings, model: TreeModel) -> None:
        self.store, self.metrics = ProjectStore(folder), Metrics()
        tree_service = TreeService(model, TreeCache(folder / "trees", 1 << 24), self.metrics)
        self.predictor = Predictor(tree_service, ImageLoader(FetchPolicy(), None), ProjectOptions())
        self.feedback_worker = FeedbackWorker(self.predictor, self.store)
        interactive = InteractiveSegmenter(self.predictor, SessionStore())
        projects = ProjectCache(self.predictor, self.store, learning=settings.learning)
        parts = Parts(settings, self.predictor, projects, self.feedback_worker, self.store, None, interactive)
        self.app = create_app(parts, self.metrics)
        self.client: FlaskClient = self.app.test_client()

    def sample(self, name: str, **labels: str) -> float | None:
        """Return the current value of a metric."""
        return self.metrics.registry.get_sample_value(name, labels)

    def set_up(self, **changes: Any) -> str:
        """Set up project 3, and return its model version."""
        answer = self.client.post("/setup", json=SETUP | changes)
        assert answer.status_code == 200, answer.text
        return str(document(answer)["model_version"])

    def predict(self, *images: object, **changes: Any) -> list[Any]:
        """Return the results for tasks with these images."""
        answer = self.client.post("/predict", json=predict_body(*images) | changes)
        assert answer.status_code == 200, answer.text
        return list(document(answer)["results"])


@contextmanager
def running(
    folder: Path, settings: Settings, backbone: Backbone | None = None, model: TreeModel | None = None
) -> Iterator[Backend]:
    """Run a backend over a folder, of the classical model unless another is given."""
    segmenter = Segmenter(backbone or load_backbone("classical"), PRESETS["merge"])
    backend = Backend(folder, settings, model or InProcessModel(segmenter, DecodeLimits()))
    yield backend
    backend.store.close()


@contextmanager
def listening(backend: Backend, threads: int) -> Iterator[str]:
    """Serve the backend on a real port, with the server of `walkcut serve`."""
    max_bytes = 2 * backend.app.config["MAX_CONTENT_LENGTH"]
    server = waitress.create_server(
        backend.app, host="127.0.0.1", port=0, threads=threads, max_request_body_size=max_bytes
    )
    runner = threading.Thread(target=server.run, daemon=True)
    runner.start()
    yield f"http://127.0.0.1:{server.effective_port}"
    wait_for("the last answer", lambda: not server.active_channels, 60)
    server.task_dispatcher.shutdown()
    server.trigger.pull_trigger(server.close)  # in the server's thread: elsewhere it would close what that waits for
    runner.join(10)


def document(answer: TestResponse) -> dict[str, Any]:
    """Return the JSON object of an answer."""
    body = answer.get_json()
    assert isinstance(body, dict)
    return body


def predict_body(*images: object, config: str = CONFIG.format("")) -> dict[str, Any]:
    """Return the body that Label Studio sends for tasks with these images."""
    tasks = [{"id": task_id, "data": {"photo": image}} for task_id, image in enumerate(images, 1)]
    params = {"login": None, "password": None, "context": None}
    return {"tasks": tasks, "project": "3.1795163936", "label_config": config, "params": params}


def text_command(line: str) -> dict[str, Any]:
    """Return the context of a call by an annotator who typed one line."""
    return {"result": [{"type": "textarea", "value": {"text": [line]}}]}


def basic(user: str, password: str) -> dict[str, str]:
    """Return the Authorization header of a user name and password."""
    return {"Authorization": "Basic " + b64encode(f"{user}:{password}".encode()).decode()}
