"""The labelling configs and the sample task work in a stock Label Studio."""

import io
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from label_studio_sdk.converter import brush
from numpy.typing import NDArray
from PIL import Image

from labelstudio_config.make_sample import paint
from tests.e2e import images
from tests.e2e.browser import Editor
from tests.e2e.label_studio import LabelStudio

FOLDER = images.REPOSITORY / "labelstudio_config"
CONFIGS = sorted(FOLDER.glob("*.xml"))


def result(number: int, from_name: str, kind: str, value: dict[str, Any]) -> dict[str, Any]:
    size = {"original_width": 640, "original_height": 480, "image_rotation": 0}
    return {"id": f"id-{number}", "from_name": from_name, "to_name": "image", "type": kind, "value": value, **size}


def masks() -> list[NDArray[np.uint8]]:
    """Two rectangles of different sizes, 255 inside."""
    some = np.zeros((2, 480, 640), np.uint8)
    some[0, 100:200, 50:250] = 255
    some[1, 300:310, 600:640] = 255
    return list(some)


@pytest.fixture(scope="module")
def annotated(label_studio: LabelStudio, label_config: str) -> int:
    """A project whose sample task has an annotation with every control of the config."""
    project = label_studio.create_project("Labelling config", label_config)
    content = (FOLDER / "sample_task.json").read_bytes()
    task = label_studio.upload(project, "sample_task.json", content)
    regions = [{"format": "rle", "rle": brush.mask2rle(mask), "brushlabels": ["Background"]} for mask in masks()]
    point = {"x": 50, "y": 50, "width": 0.2, "keypointlabels": ["Finer"]}
    box = {"x": 10, "y": 10, "width": 20, "height": 20, "rotation": 0, "rectanglelabels": ["Re-segment"]}
    results = [
        result(0, "brush", "brushlabels", regions[0]),
        result(1, "brush", "brushlabels", regions[1]),
        result(2, "point", "keypointlabels", point),
        result(3, "box", "rectanglelabels", box),
        result(4, "granularity", "textarea", {"text": ["12", "finer"]}),
    ]
    label_studio.annotate(task, results)
    return project


@pytest.mark.e2e
@pytest.mark.parametrize("export_type", ["JSON", "JSON_MIN", "CSV", "COCO", "BRUSH_TO_COCO", "BRUSH_TO_NUMPY"])
def test_annotations_can_be_exported(label_studio: LabelStudio, annotated: int, export_type: str) -> None:
    assert label_studio.export(annotated, export_type)


@pytest.mark.e2e
def test_exported_masks_are_those_annotated(label_studio: LabelStudio, annotated: int) -> None:
    archive = zipfile.ZipFile(io.BytesIO(label_studio.export(annotated, "BRUSH_TO_PNG")))
    names = sorted(name for name in archive.namelist() if "brush-Background" in name)
    exported = [np.asarray(Image.open(io.BytesIO(archive.read(name)))) for name in names]
    np.testing.assert_array_equal(exported, masks())


@pytest.mark.e2e
def test_the_screen_shows_the_sample(label_studio: LabelStudio, editor: Editor, annotated: int) -> None:
    (task,) = label_studio.tasks(annotated)
    editor.open_task(annotated, task["id"])
    assert editor.image_size() == (640, 480)
    assert [region.label for region in editor.regions()] == ["Background", "Background", "Finer", "Re-segment"]
    assert editor.text_commands() == ["12", "finer"]
    assert editor.console_errors() == []


@pytest.mark.e2e
@pytest.mark.parametrize("path", CONFIGS, ids=[path.stem for path in CONFIGS])
def test_each_config_is_taken_by_label_studio_and_by_walkcut(
    label_studio: LabelStudio, backend: str, path: Path
) -> None:
    project = label_studio.create_project(f"Ready: {path.stem}", path.read_text(encoding="utf-8"))
    (task,) = label_studio.import_tasks(project, [images.sample_task()])
    label_studio.attach_backend(project, backend)  # fails with walkcut's reason
    label_studio.retrieve_predictions(project)
    assert all(prediction["result"] for prediction in label_studio.predictions(task))


@pytest.mark.e2e
@pytest.mark.parametrize("of_task", [False, True], ids=["classes", "labels-of-the-task"])
def test_a_class_is_chosen_clicked_and_done(
    label_studio: LabelStudio, editor: Editor, backend: str, artifacts: Path, of_task: bool
) -> None:
    config = (FOLDER / "classes.xml").read_text(encoding="utf-8")
    data = images.sample_task()["data"]
    if of_task:
        config = re.sub(r'<Label value="(Person|Animal|Vehicle|Plant|Building)"[^>]*>', "", config)
        config = re.sub(r"<(\w+Labels) ", r'<\1 value="$names" ', config)
        data |= {"names": [{"value": "Building"}, {"value": "Tree"}]}
    project = label_studio.create_project("Ready classes", config)
    (task,) = label_studio.import_tasks(project, [{"data": data}])
    label_studio.attach_backend(project, backend)
    label_studio.retrieve_predictions(project)
    editor.open_task(project, task, n_tabs=1)
    editor.auto_annotation_on()
    editor.screenshot(artifacts / f"config-classes-{of_task}.png")
    for choose, place in ((editor.smart_point, (0.5, 0.1)), (editor.smart_box, ((0.1, 0.55), (0.45, 0.85)))):
        assert choose("Building", *place)
        editor.accept()
    assert [region.label for region in editor.regions()].count("Building") >= 2
    assert editor.console_errors() == []


def test_the_sample_is_what_its_script_paints() -> None:
    stored = np.asarray(Image.open(io.BytesIO(images.sample())), dtype=np.float64)
    assert np.abs(stored - np.asarray(paint())).mean() < 4  # JPEG loses a little


def test_the_sample_task_holds_the_sample() -> None:
    assert images.data_url_bytes(images.sample_task()["data"]["image"]) == images.sample()
