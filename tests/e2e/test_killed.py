"""The backend is killed again and again while annotators submit: in the end it has learned from all of it."""

import json
import os
import random
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.builders.processes import free_port, is_up, run_walkcut, wait_for
from tests.e2e import images
from tests.e2e.label_studio import LabelStudio

pytestmark = pytest.mark.e2e

KILLS, TASKS = 5, 24
START_S, LEARN_S = 60.0, 120.0


def test_nothing_submitted_is_lost_to_kills(
    label_studio: LabelStudio,
    environment: Mapping[str, str],
    label_config: str,
    tmp_path: Path,
) -> None:
    chance, stop = random.Random(5), threading.Event()
    alone = {**environment, "WALKCUT_STATE_DIR": str(tmp_path / "state")}
    port = free_port()
    url = f"http://127.0.0.1:{port}"

    def start() -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "walkcut", "serve", "--port", str(port)]
        with (tmp_path / "walkcut.log").open("ab") as log:
            process = subprocess.Popen(command, env={**os.environ, **alone}, stdout=log, stderr=log)
        wait_for(f"{url} (log: {log.name})", lambda: is_up(url), START_S)
        return process

    backend = start()
    project = label_studio.create_project("Killed", label_config)
    first = label_studio.upload(project, "image.jpg", images.views()[2])
    same = next(task["data"] for task in label_studio.tasks(project) if task["id"] == first)
    tasks = [first, *label_studio.import_tasks(project, [same] * (TASKS - 1))]
    label_studio.attach_backend(project, url)
    label_studio.retrieve_predictions(project)
    drawn = [label_studio.predictions(task)[-1]["result"] for task in tasks[:1]] * TASKS

    def submit() -> None:
        for task, result in zip(tasks, drawn, strict=True):
            label_studio.annotate(task, result)
            stop.wait(0.3)

    annotator = threading.Thread(target=submit)
    annotator.start()
    for _ in range(KILLS):
        stop.wait(chance.uniform(0.5, 2))
        backend.kill()
        backend.wait()
        backend = start()
    annotator.join()
    held = {annotation["id"] for task in tasks for annotation in label_studio.annotations(task)}
    assert len(held) == TASKS
    # Those whose webhook met no backend are found at the next start.
    backend.kill()
    backend.wait()
    backend = start()

    def learned() -> bool:
        document = json.loads(run_walkcut(alone, "project", "show", project, "--json"))
        return {entry["annotation"] for entry in document["feedback"]} == held

    try:
        wait_for("all annotations to be learned from", learned, LEARN_S)
    finally:
        backend.terminate()
        backend.wait()
