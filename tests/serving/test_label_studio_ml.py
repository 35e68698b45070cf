"""The adapter for label-studio-ml 2.x: on a stand-in of its interface, and on the package itself where it is installed.

The package is not on PyPI. With it (and its semver and colorama) on the path, the last test runs its own server:
`pip install --no-deps git+https://github.com/HumanSignal/label-studio-ml-backend`.
"""

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import requests

from tests.builders.backend import text_command
from tests.builders.feedback import CONFIG, HALVES, IMAGE, annotation
from tests.builders.processes import free_port, served, wait_for
from walkcut.errors import LabelConfigError, RequestError
from walkcut.storage import ProjectStore

TASKS = [{"id": 1, "data": {"photo": IMAGE}}, {"id": 2, "data": {"photo": "gone.jpg"}}]
TYPED = CONFIG.replace("</View>", '<TextArea name="granularity" toName="im"/></View>')
LEVELS = ["coarse", "medium", "fine", "auto"]
SUBMITTED = {"task": TASKS[0], "annotation": annotation(5, *HALVES), "project": {"id": 3, "label_config": CONFIG}}
WSGI = """
import sys
from label_studio_ml.api import init_app
from walkcut.serving.label_studio_ml import WalkcutModel, backend
backend()
init_app(WalkcutModel).run("127.0.0.1", int(sys.argv[1]))
"""


class Base:
    """What `LabelStudioMLBase` 2.x does, as far as a model class sees it: `set` takes texts only."""

    kept: dict[tuple[str, str], str] = {}  # noqa: RUF012

    def __init__(self, project_id: str | None = None, label_config: str | None = None) -> None:
        self.project_id = project_id or ""
        if label_config is not None:
            self.set("label_config", label_config)
        self.setup()

    def setup(self) -> None:
        raise NotImplementedError

    @property
    def label_config(self) -> str | None:
        return self.get("label_config")

    def set_extra_params(self, extra_params: str) -> None:
        self.set("extra_params", extra_params)

    def get(self, key: str) -> str | None:
        return self.kept.get((self.project_id, key))

    def set(self, key: str, value: str) -> None:
        if not isinstance(value, str):
            raise TypeError("Value must be a string")
        self.kept[self.project_id, key] = value


@dataclass
class Response:
    """What `ModelResponse` holds."""

    predictions: list[Any]


@pytest.fixture
def adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The adapter on the stand-in, with a state folder of its own."""
    monkeypatch.setenv("WALKCUT_STATE_DIR", str(tmp_path))
    monkeypatch.setattr(Base, "kept", {})
    model, response = ModuleType("label_studio_ml.model"), ModuleType("label_studio_ml.response")
    model.LabelStudioMLBase, response.ModelResponse = Base, Response  # type: ignore[attr-defined]
    for module in (ModuleType("label_studio_ml"), model, response):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    endings: list[Callable[[], None]] = []
    monkeypatch.setattr("atexit.register", endings.append)
    monkeypatch.delitem(sys.modules, "walkcut.serving.label_studio_ml", raising=False)
    yield importlib.import_module("walkcut.serving.label_studio_ml")
    for end in endings:
        end()


def test_one_backend_answers_all_requests(adapter: ModuleType) -> None:
    assert adapter.backend() is adapter.backend()
    models = [adapter.WalkcutModel("3", CONFIG) for _ in range(2)]
    assert models[0].get("model_version").startswith("auto ")
    assert models[0].get("model_version") == models[1].get("model_version")


def test_tasks_are_predicted_at_all_granularities_and_a_failed_one_has_no_prediction(adapter: ModuleType) -> None:
    model = adapter.WalkcutModel("3", CONFIG)
    done, failed = model.predict(TASKS, context=None, login=None, password=None).predictions
    levels = [prediction["model_version"].split(" ")[0] for prediction in done]
    assert len(levels) > 1
    assert levels == [level for level in LEVELS if level in levels], "those with the same regions share one"
    assert done[-1]["model_version"] == model.get("model_version")
    assert failed == []


def test_an_annotator_gets_one_answer(adapter: ModuleType) -> None:
    model = adapter.WalkcutModel("3", TYPED)
    (answer,) = model.predict(TASKS[:1], context=text_command("2")).predictions
    assert sum(region["type"] == "brushlabels" for region in answer["result"]) == 2
    assert [answer["result"] for answer in model.predict(TASKS[:1], context={}).predictions] == [[]]


@pytest.mark.parametrize("extra_params", [{"granularity": "3"}, '{"granularity": "3"}'])
def test_extra_parameters_change_the_version_at_once(adapter: ModuleType, extra_params: object) -> None:
    model = adapter.WalkcutModel("3", CONFIG)
    model.set_extra_params(extra_params)
    assert model.get("model_version").startswith("3 ")
    store = adapter.backend().store
    assert (store.label_config("3"), store.extra_params("3")) == (CONFIG, {"granularity": "3"})


def test_invalid_extra_parameters_are_refused(adapter: ModuleType) -> None:
    model = adapter.WalkcutModel("3", CONFIG)
    with pytest.raises(RequestError, match="the extra parameters are text: write an object"):
        model.set_extra_params("no JSON")
    model.set_extra_params(None)
    assert model.get("model_version").startswith("auto ")


def test_submitted_annotations_are_stored_and_learned_from(adapter: ModuleType) -> None:
    model = adapter.WalkcutModel("3", CONFIG)
    before = model.get("model_version")
    assert model.fit("ANNOTATION_CREATED", SUBMITTED, job_id="1") == {"status": "stored"}
    store: ProjectStore = adapter.backend().store
    assert list(store.annotations.known("3")) == [5]
    (feedback,) = wait_for("the feedback", lambda: store.annotations.feedback("3"), 30)
    assert feedback["annotation_id"] == 5
    assert adapter.WalkcutModel("3", CONFIG).get("model_version") != before


def test_a_labelling_config_without_a_brush_is_refused_at_set_up(adapter: ModuleType) -> None:
    with pytest.raises(LabelConfigError, match="walkcut needs a control that takes regions"):
        adapter.WalkcutModel("3", '<View><Image name="im" value="$photo"/></View>')


def test_a_model_can_be_made_without_a_project(adapter: ModuleType) -> None:
    assert adapter.WalkcutModel().get("model_version") is None


def _package() -> bool:
    """Whether label-studio-ml 2.x is installed: 1.x has no `ModelResponse`."""
    return bool(importlib.util.find_spec("label_studio_ml") and importlib.util.find_spec("label_studio_ml.response"))


@pytest.mark.skipif(not _package(), reason="label-studio-ml 2.x is not installed; it is not on PyPI")
def test_the_package_itself_serves_the_adapter(tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    environment = {"WALKCUT_STATE_DIR": str(tmp_path / "state"), "MODEL_DIR": str(tmp_path)}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    command = [sys.executable, "-c", WSGI, str(port)]

    def post(path: str, **body: object) -> Any:
        answer = requests.post(f"{url}/{path}", json=body, timeout=60)
        assert answer.ok, answer.text
        return answer.json()

    with served(command, url, environment=environment, log=tmp_path / "log", timeout_s=60):
        set_up = {"project": "3.17951639", "schema": TYPED, "hostname": "http://ls", "access_token": "x"}
        version = post("setup", **set_up, extra_params={"granularity": "auto"})["model_version"]
        body = {"tasks": TASKS, "project": "3.17951639", "label_config": TYPED}
        done, failed = post("predict", **body, params={"login": None, "password": None, "context": None})["results"]
        levels = [prediction["model_version"].split(" ")[0] for prediction in done]
        assert levels == [level for level in LEVELS if level in levels], "those with the same regions share one"
        assert done[-1]["model_version"] == version
        assert {region["type"] for region in done[-1]["result"]} == {"brushlabels"}
        assert failed == []
        body["tasks"] = TASKS[:1]
        (answer,) = post("predict", **body, params={"context": text_command("2")})["results"]
        assert sum(region["type"] == "brushlabels" for region in answer["result"]) == 2
        answer = post("webhook", action="ANNOTATION_CREATED", **SUBMITTED)
        assert answer == {"result": {"status": "stored"}, "status": "ok"}
        wait_for("a new version", lambda: post("setup", **set_up)["model_version"] != version, 30)
