"""Tasks as annotators open them, in a config with neutral labels and in one with classes alone."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.e2e import images
from tests.e2e.browser import Editor
from tests.e2e.label_studio import LabelStudio

pytestmark = pytest.mark.e2e

CLASSES = ("Sky", "Tree", "Water")
POINT = '<Label value="{}" hotkey="k" model_index="9"/></KeyPointLabels>'
VISIBLE = """
    const line = Array.from(document.querySelectorAll('[data-testid="textarea-region"]')).find(
        (e) => e.textContent.includes(arguments[0]));
    const texts = document.createTreeWalker(line, NodeFilter.SHOW_TEXT);
    let text = texts.nextNode();
    while (!text.textContent.includes(arguments[0])) text = texts.nextNode();
    const range = document.createRange();
    let count = 0;
    for (let i = 0; i < text.length; i++) {
        range.setStart(text, i);
        range.setEnd(text, i + 1);
        const box = range.getBoundingClientRect();
        const top = document.elementFromPoint(box.left + box.width / 2, box.top + box.height / 2);
        count += Boolean(top && line.contains(top));
    }
    return [count, text.length];
"""


def with_labels(label_config: str, point: str, classes: Sequence[str] = ()) -> str:
    """Return a config that can be pointed at with a class, and whose labels are these classes, if there are any."""
    config = label_config.replace("</KeyPointLabels>", POINT.format(point))
    labels = "".join(f'<Label value="{name}"/>' for name in classes)
    return (
        re.sub(r"(<BrushLabels [^>]*>).*?(?=</BrushLabels>)", rf"\1{labels}", config, flags=re.DOTALL)
        if classes
        else config
    )


def opened(label_studio: LabelStudio, editor: Editor, backend: str, config: str) -> int:
    """Open the sample task, pre-annotated; return its id."""
    project = label_studio.create_project("Classes", config)
    (task,) = label_studio.import_tasks(project, [images.sample_task()])
    label_studio.attach_backend(project, backend)
    label_studio.retrieve_predictions(project)
    editor.open_task(project, task, n_tabs=1)
    editor.auto_annotation_on()
    return task


def submitted(label_studio: LabelStudio, editor: Editor, task: int) -> list[dict[str, Any]]:
    """Submit, and return the brush regions that Label Studio has stored, of which no pixel is in two."""
    editor.submit()
    (stored,) = label_studio.annotations(task)
    regions = [item for item in stored["result"] if item["type"] == "brushlabels"]
    assert np.sum([images.region_mask(region) for region in regions], axis=0).max() == 1
    return regions


def test_in_a_config_with_classes_alone_regions_are_unnamed_until_somebody_names_them(
    label_studio: LabelStudio, editor: Editor, backend: str, label_config: str, artifacts: Path
) -> None:
    config = with_labels(label_config, "Sky", CLASSES)
    task = opened(label_studio, editor, backend, config)
    assert {region.label for region in editor.regions()} == {None}
    editor.screenshot(artifacts / "classes.png")
    assert editor.type_granularity("6")
    assert editor.status().startswith("→ 6 regions")
    editor.accept()
    assert [region.label for region in editor.regions()] == [None] * 6
    assert editor.smart_point("Sky", 0.5, 0.1)
    assert editor.status() == "→ Selected: Sky"
    editor.accept()
    editor.screenshot(artifacts / "classes-named.png")
    assert [region.label for region in editor.regions()].count("Sky") == 1
    assert editor.console_errors() == []
    labels = [region["value"].get("brushlabels", []) for region in submitted(label_studio, editor, task)]
    assert sorted(filter(None, labels)) == [["Sky"]]
    assert len(labels) == len(editor.regions())


def test_with_neutral_labels_a_point_with_a_class_names_its_region_the_first_time(
    label_studio: LabelStudio, editor: Editor, backend: str, label_config: str
) -> None:
    task = opened(label_studio, editor, backend, with_labels(label_config, "Background"))
    assert editor.smart_point("Background", 0.5, 0.1)
    editor.accept()
    regions = submitted(label_studio, editor, task)
    assert [region["value"]["brushlabels"] for region in regions].count(["Background"]) == 1


@pytest.mark.parametrize("size", [(1600, 1300), (1280, 800)])
def test_the_status_is_seen_whole(
    label_studio: LabelStudio, editor: Editor, backend: str, label_config: str, artifacts: Path, size: tuple[int, int]
) -> None:
    editor.browser.set_window_size(*size)
    opened(label_studio, editor, backend, label_config)
    editor.screenshot(artifacts / f"editor-{size[0]}.png")
    assert editor.type_granularity("6")
    editor.screenshot(artifacts / f"status-{size[0]}.png")
    seen, length = editor.browser.execute_script(VISIBLE, "6 regions")
    editor.browser.set_window_size(1600, 1300)
    assert seen == length
