"""A project learns from what annotators submit in a real Label Studio."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.builders.processes import wait_for
from tests.e2e import images
from tests.e2e.browser import Editor
from tests.e2e.label_studio import LabelStudio

pytestmark = pytest.mark.e2e

LEARN_S = 60.0
Walkcut = Callable[..., str]


@pytest.fixture
def named_config(label_config: str) -> str:
    """The labelling config with labels of its own, as its comment says to add them, that need few tasks."""
    more = '<Label value="Sky" background="#56b4e9"/><Label value="Meadow" background="#009e73"/>'
    mark = '<Label value="Background" background="#7b8794"/>'
    control = '<BrushLabels name="brush"'
    assert mark in label_config
    assert control in label_config
    return label_config.replace(mark, mark + more).replace(control, f'{control} label_confidence="0.8"')


def named(result: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The regions of a coarse prediction, that at the top of the image as sky and that at the bottom as meadow."""
    found = []
    for item in result:
        mask = images.region_mask(item)
        label = "Sky" if mask[3].mean() > 0.5 else "Meadow" if mask[-3].mean() > 0.5 else ""
        if label:
            found.append(item | {"value": item["value"] | {"brushlabels": [label]}})
    return found


def known(walkcut: Walkcut, project: int) -> dict[str, Any]:
    """What the project has learned, by the command line."""
    return dict(json.loads(walkcut("project", "show", project, "--json")))


def newest(label_studio: LabelStudio, task: int) -> dict[str, Any]:
    """The last prediction of a task, the one that pre-fills annotations."""
    return label_studio.predictions(task)[-1]


def labels(prediction: dict[str, Any]) -> set[str]:
    return {item["value"]["brushlabels"][0] for item in prediction["result"]}


def test_granularity_and_labels_are_learned_shown_and_undone(
    label_studio: LabelStudio,
    backend: str,
    editor: Editor,
    walkcut: Walkcut,
    named_config: str,
    artifacts: Path,
) -> None:
    project = label_studio.create_project("Learning", named_config)
    views = [*images.views(), *images.views()[:2]]
    tasks = [label_studio.upload(project, f"{n}.jpg", view) for n, view in enumerate(views)]
    label_studio.attach_backend(project, backend)
    label_studio.retrieve_predictions(project)
    plain = newest(label_studio, tasks[5])
    assert not labels(plain) & {"Sky", "Meadow"}

    # Four tasks are annotated: three over the API, one by hand from the tab that is open.
    by_api = [tasks[0], *tasks[2:4]]
    for task in by_api:
        predictions = label_studio.predictions(task)
        coarse = next(entry for entry in predictions if entry["model_version"].startswith("coarse"))
        label_studio.annotate(task, named(coarse["result"]))
    editor.open_task(project, tasks[1], n_tabs=4)
    editor.submit()
    learned = wait_for(
        "feedback of four tasks", lambda: (now := known(walkcut, project))["feedback"][3:] and now, LEARN_S
    )
    assert {entry["task"] for entry in learned["feedback"]} == set(tasks[:4])
    taken = {entry["task"]: entry["source_model_version"] for entry in learned["feedback"]}
    assert taken == dict.fromkeys(by_api, "") | {tasks[1]: newest(label_studio, tasks[1])["model_version"]}
    assert learned["granularity"].startswith("tau=")
    assert learned["labels"].keys() == {"Sky", "Meadow"}
    assert [entry["task"] for entry in learned["labels"]["Sky"]] == by_api

    # The next task arrives with the learned granularity and with labels; tasks not touched yet on request.
    task = label_studio.upload(project, "next.jpg", images.views()[2])
    editor.open_task(project, task, n_tabs=4)
    arrived = newest(label_studio, task)
    assert arrived["model_version"].startswith("learned ")
    assert {"Sky", "Meadow"} <= labels(arrived)
    editor.screenshot(artifacts / "learned.png")
    assert walkcut("prelabel", "--project", project).startswith("2 done")
    assert walkcut("prelabel", "--project", project).startswith("0 done")
    assert newest(label_studio, tasks[5])["model_version"] == arrived["model_version"]

    # What was learned can be undone, and switched off.
    assert walkcut("project", "undo", project, "--task", tasks[0]) == "1 disabled\n"
    assert [entry["task"] for entry in known(walkcut, project)["labels"]["Sky"]] == by_api[1:]
    assert walkcut("project", "sync", project) == "0 learned, 0 forgotten, 0 failed\n"
    assert walkcut("project", "reset", project) == "3 disabled\n"
    again = label_studio.upload(project, "again.jpg", images.views()[2])
    label_studio.task(again)
    assert newest(label_studio, again)["model_version"] == plain["model_version"]
    assert editor.console_errors() == []


def test_strokes_fold_segments(label_studio: LabelStudio, backend: str, named_config: str) -> None:
    project = label_studio.create_project("Folding", named_config)
    task = label_studio.upload(project, "image.jpg", images.views()[0])
    label_studio.attach_backend(project, backend)
    label_studio.retrieve_predictions(project)
    size = newest(label_studio, task)["result"][0]
    region = {key: size[key] for key in ("original_width", "original_height", "image_rotation", "to_name")}
    box = {"x": 5, "y": 3, "width": 80, "height": 3, "rotation": 0, "rectanglelabels": ["Re-segment"]}
    stroke = np.zeros((size["original_height"], size["original_width"]), np.uint8)
    stroke[-20:-10, 40:-40] = 255
    drawn = [
        region
        | {"id": "a", "from_name": "brush", "type": "brushlabels", "value": images.brush_value(stroke, "Meadow")},
        region | {"id": "b", "from_name": "box", "type": "rectanglelabels", "value": box},  # a prompt, not a region
    ]
    before = len(label_studio.predictions(task))
    label_studio.annotate(task, drawn)
    folded = wait_for("the folded segments", lambda: label_studio.predictions(task)[before:], LEARN_S)
    (prediction,) = folded
    assert prediction["model_version"].startswith("merged ")
    meadow = [item for item in prediction["result"] if item["value"]["brushlabels"] == ["Meadow"]]
    assert len(meadow) == 1
    assert images.region_mask(meadow[0]).sum() > 5 * (stroke > 0).sum()
