"""Tasks with several images: the pages of a list, and two images side by side."""

from base64 import b64encode
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import images
from tests.e2e.browser import Editor
from tests.e2e.label_studio import LabelStudio

pytestmark = pytest.mark.e2e


def addresses() -> list[str]:
    """The addresses of two images."""
    return [f"data:image/jpeg;base64,{b64encode(view).decode()}" for view in images.views()[:2]]


def pages(result: list[dict[str, Any]], result_type: str) -> Counter[int | None]:
    """Return the number of regions on each page."""
    return Counter(item.get("item_index") for item in result if item["type"] == result_type)


def test_each_page_of_a_list_gets_its_regions(
    label_studio: LabelStudio, editor: Editor, backend: str, label_config: str, artifacts: Path
) -> None:
    config = label_config.replace('value="$image"', 'valueList="$pages"').replace("BrushLabels", "PolygonLabels")
    project = label_studio.create_project("pages", config)
    (task,) = label_studio.import_tasks(project, [{"pages": addresses()}])
    label_studio.attach_backend(project, backend)
    label_studio.retrieve_predictions(project)
    predicted = pages(label_studio.predictions(task)[-1]["result"], "polygonlabels")
    assert {*predicted} == {0, 1}

    editor.open_task(project, task, n_tabs=1)
    editor.auto_annotation_on()
    editor.screenshot(artifacts / "pages-1.png")
    editor.choose_page(1)
    editor.screenshot(artifacts / "pages-2.png")
    assert editor.type_granularity("4")
    editor.screenshot(artifacts / "pages-typed.png")
    assert editor.status().count("regions") == 2
    editor.accept()
    assert editor.smart_point("Select", 0.05, 0.05)
    assert editor.status() == "→ Region selected"
    editor.accept()
    editor.screenshot(artifacts / "pages-edited.png")
    editor.submit()
    (stored,) = label_studio.annotations(task)
    found = pages(stored["result"], "polygonlabels")
    assert {*found} == {0, 1}
    assert found.total() < predicted.total()
    assert editor.console_errors() == []


def test_images_side_by_side_get_regions_of_their_own_controls(
    label_studio: LabelStudio, editor: Editor, backend: str, artifacts: Path
) -> None:
    config = """<View style="display: grid; grid-template-columns: 1fr 1fr">
      <View><Image name="left" value="$sides[0].url"/>
        <PolygonLabels name="outline" toName="left"><Label value="Region"/></PolygonLabels></View>
      <View><Image name="right" value="$sides[1].url"/>
        <RectangleLabels name="box" toName="right"><Label value="Object"/></RectangleLabels></View>
    </View>"""
    project = label_studio.create_project("side by side", config)
    (task,) = label_studio.import_tasks(project, [{"sides": [{"url": address} for address in addresses()]}])
    label_studio.attach_backend(project, backend)
    label_studio.retrieve_predictions(project)
    predicted = Counter((item["to_name"], item["type"]) for item in label_studio.predictions(task)[-1]["result"])
    assert {*predicted} == {("left", "polygonlabels"), ("right", "rectanglelabels")}

    editor.open_task(project, task, n_tabs=1)
    editor.screenshot(artifacts / "side-by-side.png")
    assert len(editor.regions()) == predicted.total()
    editor.submit()
    (stored,) = label_studio.annotations(task)
    assert Counter((item["to_name"], item["type"]) for item in stored["result"]) == predicted
    assert editor.console_errors() == []
