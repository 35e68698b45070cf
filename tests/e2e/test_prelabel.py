"""`walkcut prelabel --project` into a real Label Studio: killed on the way, and with new predictions for old ones."""

import io
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.builders.processes import run_walkcut, wait_for
from tests.e2e.label_studio import LabelStudio

pytestmark = pytest.mark.e2e

IMAGES, KILLS = 300, 2
FILES = 100  # of one upload
PROGRESS_S = 60.0

Version = tuple[str, list[dict[str, Any]]]


@pytest.fixture
def alone(environment: Mapping[str, str], tmp_path: Path) -> Mapping[str, str]:
    """The settings, with a state folder of its own."""
    return {**environment, "WALKCUT_STATE_DIR": str(tmp_path / "state")}


def small_image(number: int) -> tuple[str, bytes]:
    """An image with three areas, like no other."""
    chance = np.random.default_rng(number)
    pixels = np.empty((48, 64, 3))
    pixels[:], pixels[: chance.integers(12, 36)] = chance.integers(0, 255, (2, 3))
    pixels[:, : chance.integers(16, 48)] += chance.integers(-90, 90, 3)
    stream = io.BytesIO()
    Image.fromarray((pixels + chance.normal(0, 4, pixels.shape)).clip(0, 255).astype(np.uint8)).save(stream, "PNG")
    return f"{number:03}.png", stream.getvalue()


def project_of_images(label_studio: LabelStudio, title: str, label_config: str, count: int) -> int:
    """A project of uploaded images, which no backend predicts; its id."""
    project = label_studio.create_project(title, label_config)
    for start in range(0, count, FILES):
        files = {name: (name, content) for name, content in map(small_image, range(start, min(start + FILES, count)))}
        label_studio.request("POST", f"/api/projects/{project}/import", files=files)
    return project


def predictions(label_studio: LabelStudio, project: int) -> dict[str, list[Version]]:
    """Each image's predictions by its name, oldest first, without what depends on the number of its task."""
    found: dict[str, list[Version]] = {}
    names = {task["id"]: task["data"]["image"].rpartition("-")[2] for task in label_studio.tasks(project)}
    rows = label_studio.request("GET", "/api/predictions", query={"project": project}).json()
    for row in sorted(rows, key=lambda row: int(row["id"])):
        regions = [{key: value for key, value in region.items() if key != "id"} for region in row["result"]]
        found.setdefault(names[row["task"]], []).append((row["model_version"], regions))
    return found


def versions(label_studio: LabelStudio, task: int) -> list[str]:
    return [prediction["model_version"] for prediction in label_studio.predictions(task)]


def count(label_studio: LabelStudio, project: int) -> int:
    """How many predictions a project has."""
    return sum(label_studio.request("GET", f"/api/projects/{project}/model-versions/").json().values())


def test_a_run_that_is_killed_twice_comes_to_the_same(
    label_studio: LabelStudio, alone: Mapping[str, str], label_config: str
) -> None:
    chance = random.Random(11)
    killed, whole = (project_of_images(label_studio, title, label_config, IMAGES) for title in ("Killed", "Whole"))
    prelabel = ("prelabel", "--workers", 2, "--project")
    for _ in range(KILLS):
        before = count(label_studio, killed)
        command = [sys.executable, "-m", "walkcut", *map(str, prelabel), str(killed)]
        with subprocess.Popen(
            command, env={**os.environ, **alone}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        ) as process:
            wait_for("predictions", lambda: count(label_studio, killed) > before, PROGRESS_S)  # noqa: B023
            time.sleep(chance.random())
            assert process.poll() is None
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    left = count(label_studio, killed)
    assert left > 0
    assert f"in total {IMAGES} done, 0 failed" in run_walkcut(alone, *prelabel, killed)
    assert left < count(label_studio, killed)
    run_walkcut(alone, *prelabel, whole)

    found = predictions(label_studio, killed)
    assert len(found) == IMAGES
    levels = [[version.partition(" ")[0] for version, _ in predictions] for predictions in found.values()]
    for shown in levels:
        assert shown[-1] == "auto", "the default is last"
        assert shown == [level for level in ("coarse", "medium", "fine", "auto") if level in shown], "each once"
    assert ["coarse", "medium", "fine", "auto"] in levels
    assert found == predictions(label_studio, whole)
    assert len({str(predictions) for predictions in found.values()}) == IMAGES, "no two images are alike"


def test_earlier_predictions_are_replaced_where_annotators_lose_nothing(
    label_studio: LabelStudio, alone: Mapping[str, str], label_config: str
) -> None:
    project = project_of_images(label_studio, "Replaced", label_config, 5)
    walkcut = partial(run_walkcut, alone, "prelabel", "--workers", 1, "--project", project)
    walkcut()
    tasks = [task["id"] for task in label_studio.tasks(project)]
    old = {task: versions(label_studio, task) for task in tasks}
    default = old[tasks[0]][-1]
    taken = {}
    for task, skipped in ((tasks[1], False), (tasks[2], True)):
        parent = label_studio.predictions(task)[0]
        body = {"result": parent["result"], "was_cancelled": skipped, "parent_prediction": parent["id"]}
        path = f"/api/tasks/{task}/annotations/"
        taken[label_studio.request("POST", path, json=body).json()["id"]] = parent["id"]
    others = [
        {"task": tasks[3], "model_version": version, "score": 0.5, "result": []} for version in ("sam-2", "merged 7")
    ]
    label_studio.request("POST", f"/api/projects/{project}/import/predictions", json=others)
    chosen = {
        "label_config": label_config.replace('max_regions="40"', 'max_regions="39"'),
        "model_version": default,
    }
    label_studio.request("PATCH", f"/api/projects/{project}", json=chosen)

    for _ in range(2):
        walkcut("--replace")
        found = {task: versions(label_studio, task) for task in tasks}
        digest = found[tasks[0]][-1].partition(" ")[2]
        assert digest != default.partition(" ")[2]
        new = {task: [version for version in found[task] if version.endswith(digest)] for task in tasks}
        assert all(new[task][-1] == f"auto {digest}" for task in tasks if task != tasks[1])
        assert found == {
            tasks[0]: [default, *new[tasks[0]]],  # which the project's settings choose
            tasks[1]: old[tasks[1]],  # annotated
            tasks[2]: [*old[tasks[2]], *new[tasks[2]]],  # skipped
            tasks[3]: [default, "sam-2", "merged 7", *new[tasks[3]]],
            tasks[4]: [default, *new[tasks[4]]],
        }
    for annotation, parent in taken.items():
        document = label_studio.request("GET", f"/api/annotations/{annotation}/").json()
        assert document["parent_prediction"] == parent
