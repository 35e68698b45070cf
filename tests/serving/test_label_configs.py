"""Labelling configs as people write them: each is served with regions, or refused with the tag and the change."""

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.builders.backend import Backend, document, running
from tests.builders.scenes import data_url, png, quarters
from walkcut.doctor.project import check_config
from walkcut.errors import WalkcutError
from walkcut.labelstudio.config import parse_image_tags
from walkcut.labelstudio.tasks import Task
from walkcut.settings import Settings

CONFIGS = sorted((Path(__file__).parent / "label_configs").glob("*.xml"))
IMAGE = png(quarters(30, 40))
STATUS_LINE = 400  # characters that Label Studio shows
CHANGES = ("add ", "write ", "replace ", "use ", "rename ", "import ", "put ", "list ")


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    folder = tmp_path_factory.mktemp("state")
    with running(folder, Settings(state_dir=folder)) as backend:
        yield backend


def example(path: Path) -> tuple[str, str, dict[str, Any]]:
    """Return a config, the tag that it is refused for (empty if it is served), and the data of a task."""
    text = path.read_text(encoding="utf-8")
    expected, data = re.findall("<!-- (.*) -->", text)[:2]
    data = data.replace("IMAGE", data_url(IMAGE)).replace("CODE", base64.b64encode(IMAGE).decode())
    return text, expected.partition(": ")[2], json.loads(data)


def test_there_are_enough_configs_of_both_kinds() -> None:
    refused = sum(bool(example(path)[1]) for path in CONFIGS)
    assert (len(CONFIGS) >= 60, refused >= 20, len(CONFIGS) - refused >= 40) == (True, True, True)


@pytest.mark.parametrize("path", CONFIGS, ids=[path.stem for path in CONFIGS])
def test_a_config_is_served_with_regions_or_refused_with_the_tag_and_the_change(
    backend: Backend, caplog: pytest.LogCaptureFixture, path: Path
) -> None:
    config, refused_tag, data = example(path)
    answer = backend.client.post("/setup", json={"project": "7.1", "schema": config})
    body = {"tasks": [{"id": 1, "data": data}], "project": "7.1", "label_config": config, "params": {"context": None}}
    predicted = backend.client.post("/predict", json=body)
    if refused_tag:
        error = document(answer)["error"]
        assert (answer.status_code, predicted.status_code) == (400, 400)
        assert f"<{refused_tag}" in error
        assert any(change in error for change in CHANGES)
        assert len(error) <= STATUS_LINE
        assert [record.getMessage() for record in caplog.records][:1] == [f"POST /setup: {error}"]
        with pytest.raises(WalkcutError, match=re.escape(error)):
            list(check_config(config, {}))
    else:
        assert answer.status_code == 200, answer.text
        (predictions,) = document(predicted)["results"]
        assert all(prediction["result"] for prediction in predictions)
        images = Task(1, data).images(parse_image_tags(config))
        shown = {(image.tag.name, image.item_index) for image in images}
        result = predictions[-1]["result"]
        assert {(item["to_name"], item.get("item_index")) for item in result} == shown
        controls = {control.name: control for image in images for control in image.tag.controls}
        assert {controls[item["from_name"]].result_type for item in result if item["type"] != "labels"} == {
            item["type"] for item in result if item["type"] != "labels"
        }
