"""No pixel is in two regions, whatever is on the screen when a real Label Studio asks: it does not tell."""

from pathlib import Path

import numpy as np
import pytest

from tests.e2e import images
from tests.e2e.browser import Editor
from tests.e2e.label_studio import LabelStudio

pytestmark = pytest.mark.e2e

SUN, HILL = (0.82, 0.17), (0.1, 0.6)


def opened(label_studio: LabelStudio, editor: Editor, backend: str, config: str) -> tuple[int, int]:
    """Open the sample task, pre-annotated; return the ids of its project and its own."""
    project = label_studio.create_project("Screens", config)
    (task,) = label_studio.import_tasks(project, [images.sample_task()])
    label_studio.attach_backend(project, backend)
    label_studio.retrieve_predictions(project)
    editor.open_task(project, task, n_tabs=4)
    editor.auto_annotation_on()
    return project, task


def submitted_once(label_studio: LabelStudio, editor: Editor, task: int) -> list[str]:
    """Submit, and return the labels of the brush regions, which hold each pixel once."""
    identity = editor.submit()
    (stored,) = [annotation for annotation in label_studio.annotations(task) if annotation["id"] == identity]
    drawn = [item for item in stored["result"] if item["type"] == "brushlabels"]
    assert (np.sum([images.region_mask(item) for item in drawn], axis=0) == 1).all()
    return [label for item in drawn for label in item["value"]["brushlabels"]]


@pytest.mark.parametrize("rejected", ["2", "Merge"])
def test_a_point_after_rejected_suggestions(
    label_studio: LabelStudio, backend: str, editor: Editor, label_config: str, rejected: str
) -> None:
    _, task = opened(label_studio, editor, backend, label_config)
    if rejected == "Merge":
        assert editor.smart_point("Merge", *SUN)
        assert editor.smart_point("Merge", *HILL)
    else:
        assert editor.type_granularity(rejected)
    editor.reject()
    assert editor.smart_point("Finer", *HILL)
    editor.accept()
    submitted_once(label_studio, editor, task)
    assert editor.console_errors() == []


@pytest.mark.parametrize("typed", [True, False])
def test_an_annotation_beside_a_submitted_one(
    label_studio: LabelStudio, backend: str, editor: Editor, label_config: str, typed: bool, artifacts: Path
) -> None:
    project, task = opened(label_studio, editor, backend, label_config)
    assert editor.type_granularity("3")
    editor.accept()
    submitted_once(label_studio, editor, task)
    editor.open_task(project, task, n_tabs=4)
    editor.duplicate_tab("coarse")
    editor.auto_annotation_on()
    assert editor.type_granularity("5") if typed else editor.smart_point("Finer", *HILL)
    editor.accept()
    editor.screenshot(artifacts / f"beside-{typed}.png")
    submitted_once(label_studio, editor, task)


def test_a_tab_that_is_duplicated_after_a_region_was_named(
    label_studio: LabelStudio, backend: str, editor: Editor, label_config: str
) -> None:
    config = label_config.replace("</KeyPointLabels>", '<Label value="Background" model_index="9"/></KeyPointLabels>')
    _, task = opened(label_studio, editor, backend, config)
    assert editor.smart_point("Background", *HILL)
    editor.accept()
    editor.wait_for_draft()
    editor.duplicate_tab("coarse")
    assert editor.type_granularity("4")
    editor.accept()
    assert submitted_once(label_studio, editor, task).count("Background") == 1


def test_labels_with_an_alias(label_studio: LabelStudio, backend: str, editor: Editor, label_config: str) -> None:
    config = label_config.replace('value="Region', 'alias="Region" value="Gebiet', 1)
    assert config != label_config
    _, task = opened(label_studio, editor, backend, config)
    assert editor.type_granularity("6")
    editor.accept()
    editor.wait_for_draft()
    assert editor.type_granularity("3")
    assert editor.status().startswith("→ 3 regions;")
    editor.accept()
    assert "Region" in submitted_once(label_studio, editor, task)
    assert editor.console_errors() == []
