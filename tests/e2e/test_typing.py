"""An annotator types granularities in a real Label Studio, and the image is cut anew."""

from pathlib import Path

import numpy as np
import pytest

from tests.builders.processes import wait_for
from tests.e2e import images
from tests.e2e.browser import Editor
from tests.e2e.label_studio import LabelStudio

pytestmark = pytest.mark.e2e


def test_typed_granularities_replace_the_suggestions(
    label_studio: LabelStudio, backend: str, editor: Editor, label_config: str, artifacts: Path
) -> None:
    project = label_studio.create_project("Typing", label_config)
    (task,) = label_studio.import_tasks(project, [images.sample_task()])
    label_studio.attach_backend(project, backend)
    editor.open_task(project, task, n_tabs=4)
    editor.new_annotation()
    editor.auto_annotation_on()
    for line, regions, status in (
        ("6", 6, "→ 6 regions"),
        ("finer", 9, "→ 9 regions"),
        ("nonsense", 0, "→ Unknown granularity 'nonsense': use auto"),
        ("4", 4, "→ 4 regions"),
    ):
        assert editor.type_granularity(line)
        assert len(editor.suggestions()) == regions, line
        assert editor.status().startswith(status)
    editor.screenshot(artifacts / "typing.png")
    editor.accept()
    assert [region.label is not None for region in editor.regions()] == [True] * 4
    annotation = editor.submit()
    (stored,) = label_studio.annotations(task)
    assert stored["id"] == annotation
    assert len([item for item in stored["result"] if item["type"] == "brushlabels"]) == 4


@pytest.mark.parametrize("auto_accept", [False, True])
def test_the_first_granularity_replaces_what_the_task_was_opened_with(
    label_studio: LabelStudio, backend: str, editor: Editor, label_config: str, artifacts: Path, auto_accept: bool
) -> None:
    project = label_studio.create_project("Typing at once", label_config)
    (task,) = label_studio.import_tasks(project, [images.sample_task()])
    label_studio.attach_backend(project, backend)
    label_studio.retrieve_predictions(project)
    editor.open_task(project, task, n_tabs=4)
    assert {region.id for region in editor.regions()} == {
        item["id"] for item in label_studio.predictions(task)[-1]["result"]
    }
    editor.auto_annotation_on(accept=auto_accept)
    for line, count in (("8", 8), ("finer", 12), ("3", 3)):  # without a draft, then with one
        assert editor.type_granularity(line)
        if not auto_accept:
            editor.accept()
        wait_for("the old regions to go", lambda: len(editor.regions()) <= 12, 60)
        assert len(editor.regions()) == count
        assert f"{count} " in editor.status()
        if count != 8:
            editor.wait_for_draft()
    editor.screenshot(artifacts / f"typing-at-once-{auto_accept}.png")
    editor.submit()
    (stored,) = label_studio.annotations(task)
    drawn = [item for item in stored["result"] if item["type"] == "brushlabels"]
    assert (len(drawn), stored["parent_prediction"]) == (3, label_studio.predictions(task)[-1]["id"])
    assert (np.sum([images.region_mask(item) for item in drawn], axis=0) == 1).all()
    assert all([item["meta"]["walkcut"]["label"]] == item["value"]["brushlabels"] for item in drawn)
    assert editor.console_errors() == []
