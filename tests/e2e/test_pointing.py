"""An annotator points at regions in a real Label Studio, and they are split, folded and selected in place."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.e2e import images
from tests.e2e.browser import Editor
from tests.e2e.label_studio import LabelStudio

pytestmark = pytest.mark.e2e

SUN, HILL, HOUSE = (0.82, 0.17), (0.1, 0.6), (0.3, 0.55)


@pytest.fixture(scope="module")
def project(label_studio: LabelStudio, backend: str, label_config: str) -> int:
    project = label_studio.create_project("Pointing", label_config)
    label_studio.import_tasks(project, [images.sample_task()] * 4)
    label_studio.attach_backend(project, backend)
    return project


@pytest.fixture(scope="module")
def tasks(label_studio: LabelStudio, project: int) -> Iterator[int]:
    """Fresh tasks, one after the other."""
    return iter([task["id"] for task in label_studio.tasks(project)])


def brushes(editor: Editor) -> set[str]:
    return {region.id for region in editor.regions() if region.type == "brushregion"}


def test_select_extends_and_excludes(editor: Editor, project: int, tasks: Iterator[int], artifacts: Path) -> None:
    editor.open_task(project, next(tasks), n_tabs=4)
    editor.new_annotation()
    editor.auto_annotation_on()
    assert editor.smart_point("Select", *SUN)
    (first,) = editor.suggestions()
    assert editor.smart_point("Select", *HILL)
    (second,) = editor.suggestions()
    assert first.id == second.id
    assert editor.smart_point("Select", *HILL, negative=True)
    (third,) = editor.suggestions()
    assert third.id == first.id
    assert editor.status().startswith("→ Region selected")
    editor.screenshot(artifacts / "select.png")
    editor.accept()
    assert brushes(editor) == {first.id}


def test_regions_are_split_and_folded_in_place(
    label_studio: LabelStudio, editor: Editor, project: int, tasks: Iterator[int], artifacts: Path
) -> None:
    task = next(tasks)
    editor.open_task(project, task, n_tabs=4)
    editor.auto_annotation_on()
    before = brushes(editor)
    assert editor.smart_point("Finer", *HILL)
    assert len(editor.suggestions()) == 2
    editor.screenshot(artifacts / "finer.png")
    editor.accept()
    split = brushes(editor)
    assert before < split
    assert len(split) == len(before) + 1
    assert editor.smart_point("Coarser", *HILL)
    editor.screenshot(artifacts / "coarser.png")
    editor.accept()
    assert brushes(editor) == before
    assert editor.smart_point("Merge", *HILL)
    assert not editor.suggestions()
    assert editor.smart_point("Merge", *SUN)
    editor.accept()
    merged = brushes(editor)
    assert merged < before
    assert len(merged) == len(before) - 1
    editor.screenshot(artifacts / "merged.png")
    editor.submit()
    (stored,) = label_studio.annotations(task)
    drawn = [item for item in stored["result"] if item["type"] == "brushlabels"]
    assert {item["id"] for item in drawn} == merged
    assert np.sum([images.region_mask(item) for item in drawn], axis=0).max() == 1  # no pixel is in two
    assert editor.console_errors() == []


def test_a_box_is_segmented_anew(editor: Editor, project: int, tasks: Iterator[int], artifacts: Path) -> None:
    editor.open_task(project, next(tasks), n_tabs=4)
    editor.auto_annotation_on()
    assert editor.smart_box("Re-segment", (0.15, 0.3), (0.5, 0.75))
    assert editor.suggestions()
    editor.screenshot(artifacts / "box.png")
    editor.accept()
    assert "new regions in the box" in editor.status()


def test_typing_replaces_what_is_in_the_draft(
    label_studio: LabelStudio, editor: Editor, project: int, tasks: Iterator[int]
) -> None:
    task = next(tasks)
    editor.open_task(project, task, n_tabs=4)
    editor.new_annotation()
    editor.auto_annotation_on()
    assert editor.type_granularity("6")
    editor.accept()
    editor.wait_for_draft()
    assert editor.type_granularity("3")
    editor.accept()
    assert len(brushes(editor)) == 3
