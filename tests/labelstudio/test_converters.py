"""Round trips of regions through Label Studio's own exports, made by its SDK.

Bitmasks, vectors and ellipses are in its JSON and CSV exports alone, and so are polygons that a `<Labels>` tag names.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from defusedxml.ElementTree import fromstring
from label_studio_sdk.converter.converter import Converter
from pycocotools.coco import COCO

from tests.builders.label_config import make_task_image
from tests.builders.masks import blobs
from walkcut.labelstudio.config import parse_image_tags
from walkcut.labelstudio.predictions import Region, connected_regions, make_prediction
from walkcut.masks.bounds import bounding_box
from walkcut.masks.raster import fill_polygon

# pycocotools' decoder is written for numpy 1.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

LABELS = ("Car", "Sky", "Tree", "Über & co")
NUMBERED = np.kron(blobs(3, (20, 25)), np.ones((4, 4), np.uint16))
OPTIONS = "".join(f'<Label value="{label.replace("&", "&amp;")}"/>' for label in LABELS)
CONTROLS = {
    "own labels": '<{tag}Labels name="c" toName="image" tolerance="0">{labels}</{tag}Labels>',
    "labels apart": '<{tag} name="c" toName="image"/><Labels name="l" toName="image">{labels}</Labels>',
}

Export = Callable[[str, str, str], list[Region]]


def config_of(tag: str, control: str) -> str:
    return f'<View><Image name="image" value="$image"/>{CONTROLS[control].format(tag=tag, labels=OPTIONS)}</View>'


@pytest.fixture
def export(tmp_path: Path) -> Export:
    """Export an annotation of a control, and return the regions that it was made of."""

    def make(tag: str, control: str, export_format: str) -> list[Region]:
        config = config_of(tag, control)
        (tmp_path / "a.png").touch()
        (image_tag,) = parse_image_tags(config)
        image = make_task_image(image_tag, {"image": str(tmp_path / "a.png")})
        regions = connected_regions([Region(np.equal(NUMBERED, n), label) for n, label in enumerate(LABELS)], image)
        result = make_prediction([(image, regions)], "v1").result
        task = {"id": 1, "data": image.task.data, "annotations": [{"id": 2, "completed_by": 3, "result": result}]}
        (tmp_path / "all.json").write_text(json.dumps([task]))
        converter = Converter(config, project_dir=None)
        assert export_format in converter.supported_formats
        converter.convert(str(tmp_path / "all.json"), str(tmp_path / "out"), export_format, is_dir=False)
        return regions

    return make


def box(region: Region) -> list[int]:
    """Return a region's left, top, right and bottom."""
    rows, columns = bounding_box(region.mask)
    return [columns.start, rows.start, columns.stop, rows.stop]


def yolo_lines(out: Path) -> list[tuple[str, np.ndarray]]:
    """Return the label and the numbers of each line."""
    classes = (out / "classes.txt").read_text("utf-8").splitlines()
    rows = [line.split() for line in (out / "labels" / "a.txt").read_text().splitlines()]
    return [(classes[int(number)], np.array(numbers, float).reshape(-1, 2)) for number, *numbers in rows]


def test_polygons_in_coco(export: Export, tmp_path: Path) -> None:
    regions = export("Polygon", "own labels", "COCO")
    coco = COCO(tmp_path / "out" / "result.json")
    instances = coco.loadAnns(coco.getAnnIds())
    for instance, region in zip(instances, regions, strict=True):
        assert (coco.annToMask(instance) == region.mask).all()
        assert coco.cats[instance["category_id"]]["name"] == region.label
        left, top, width, height = instance["bbox"]
        assert [left, top, left + width, top + height] == pytest.approx(box(region), abs=0.01)
        assert instance["area"] == pytest.approx(region.mask.sum(), rel=0.01)


def test_polygons_in_yolo(export: Export, tmp_path: Path) -> None:
    regions = export("Polygon", "own labels", "YOLO")
    for (label, points), region in zip(yolo_lines(tmp_path / "out"), regions, strict=True):
        assert label == region.label
        assert (fill_polygon([points * NUMBERED.shape[::-1]], NUMBERED.shape) == region.mask).all()


@pytest.mark.parametrize("control", CONTROLS)
def test_boxes_in_coco(export: Export, tmp_path: Path, control: str) -> None:
    regions = export("Rectangle", control, "COCO")
    coco = COCO(tmp_path / "out" / "result.json")
    for instance, region in zip(coco.loadAnns(coco.getAnnIds()), regions, strict=True):
        left, top, width, height = instance["bbox"]
        assert [left, top, left + width, top + height] == pytest.approx(box(region), abs=1e-6)
        assert coco.cats[instance["category_id"]]["name"] == region.label


@pytest.mark.parametrize("control", CONTROLS)
def test_boxes_in_yolo(export: Export, tmp_path: Path, control: str) -> None:
    regions = export("Rectangle", control, "YOLO")
    for (label, (centre, size)), region in zip(yolo_lines(tmp_path / "out"), regions, strict=True):
        assert label == region.label
        corners = np.concatenate([centre - size / 2, centre + size / 2]) * np.tile(NUMBERED.shape[::-1], 2)
        assert corners.tolist() == pytest.approx(box(region), abs=1e-6)


@pytest.mark.parametrize("control", CONTROLS)
def test_boxes_in_voc(export: Export, tmp_path: Path, control: str) -> None:
    """Label Studio counts from 0 there, and cuts off fractions of pixels, which rounding leaves, twice."""
    regions = export("Rectangle", control, "VOC")
    document = fromstring((tmp_path / "out" / "Annotations" / "a.xml").read_bytes())
    for element, region in zip(document.iter("object"), regions, strict=True):
        sides = [int(element.findtext(f"bndbox/{side}", "")) for side in ("xmin", "ymin", "xmax", "ymax")]
        assert sides == pytest.approx(box(region), abs=2)
        assert element.findtext("name") == region.label


@pytest.mark.parametrize("tag", ["Bitmask", "Vector", "Ellipse"])
def test_other_shapes_are_in_json_alone(export: Export, tmp_path: Path, tag: str) -> None:
    """Where this fails, Label Studio has learned to export them: test their round trip."""
    regions = export(tag, "own labels", "JSON_MIN")
    (task,) = json.loads((tmp_path / "out" / "result.json").read_text())
    assert [value[f"{tag.lower()}labels"] for value in task["c"]] == [[region.label] for region in regions]
    formats = Converter(config_of(tag, "own labels"), project_dir=None).supported_formats
    assert not {"COCO", "YOLO", "VOC", "BRUSH_TO_PNG"} & set(formats)


@pytest.mark.parametrize("control", CONTROLS)
def test_brushes_as_label_images(export: Export, tmp_path: Path, control: str) -> None:
    (tmp_path / "out").mkdir()
    regions = export("Brush", control, "BRUSH_TO_NUMPY")
    files = {path.stem.split("-")[-2]: np.load(path) for path in (tmp_path / "out").glob("*.npy")}
    assert set(files) == {region.label for region in regions}
    for region in regions:
        assert ((files[region.label] > 0) == region.mask).all()
