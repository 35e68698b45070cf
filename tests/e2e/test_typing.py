"""An annotator types granularities in a real Label Studio, and the image is cut anew."""

from pathlib import Path

import pytest

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
    editor.open_task(project, task)
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
