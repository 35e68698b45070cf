"""`walkcut prelabel --project` into a real Label Studio: killed on the way, and with new predictions for old ones."""

import io
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.builders.processes import run_walkcut
from tests.e2e.label_studio import LabelStudio

pytestmark = pytest.mark.e2e

IMAGES = 300
FILES = 100  # of one upload
KILLED_S = 300.0

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


# Runs walkcut, and kills it before or after the given call of a method.
KILLED_AT = """
import os, signal, sys
from importlib import import_module

module, owner, name, when, calls, *arguments = sys.argv[1:]
owner = getattr(import_module(module), owner)
method, left = getattr(owner, name), int(calls)

def killed(*args, **options):
    global left
    left -= 1
    if when == "before" and not left:
        os.kill(os.getpid(), signal.SIGKILL)
    result = method(*args, **options)
    if when == "after" and not left:
        os.kill(os.getpid(), signal.SIGKILL)
    return result

setattr(owner, name, killed)
sys.argv = ["walkcut", *arguments]
from walkcut.cli import main
main()
"""
CLIENT, CHECKPOINT = ("walkcut.labelstudio.client", "LabelStudioClient"), ("walkcut.bulk.checkpoint", "Checkpoint")
KILL_POINTS = (
    (*CHECKPOINT, "announce", "after", 1),  # nothing is sent
    (*CLIENT, "add_predictions", "before", 2),
    (*CLIENT, "add_predictions", "after", 1),  # sent, and not in the checkpoint
    (*CHECKPOINT, "save", "before", 1),
    (*CHECKPOINT, "save", "after", 7),  # some of what was sent is in the checkpoint
)


def test_a_run_that_is_killed_around_each_request_comes_to_the_same(
    label_studio: LabelStudio, alone: Mapping[str, str], label_config: str
) -> None:
    killed, whole = (project_of_images(label_studio, title, label_config, IMAGES) for title in ("Killed", "Whole"))
    prelabel = ("prelabel", "--workers", 2, "--project")
    for point in KILL_POINTS:
        command = [sys.executable, "-c", KILLED_AT, *map(str, (*point, *prelabel, killed))]
        with subprocess.Popen(
            command, env={**os.environ, **alone}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        ) as process:
            _, stderr = process.communicate(timeout=KILLED_S)
            assert process.returncode == -signal.SIGKILL, stderr.decode()
    left = count(label_studio, killed)
    assert left > 0
    assert f"in total {IMAGES} done, 0 failed, 0 skipped" in run_walkcut(alone, *prelabel, killed)
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
