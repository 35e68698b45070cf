"""Properties of all formats."""

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.builders.predictions import CLASSES, CONTROL, make_prediction, sample_prediction
from walkcut.bulk.formats import FORMATS, make_format
from walkcut.errors import SettingsError
from walkcut.labelstudio.config import BrushControl

LABELS = np.array([[1, 1, 0], [2, 2, 3]])


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_is_made_by_name_and_can_be_pickled(name: str) -> None:
    output_format = make_format(name, CONTROL)
    assert output_format.name == name
    sent = pickle.loads(pickle.dumps(output_format))
    assert sent == output_format
    assert sent.encode(sample_prediction()) == output_format.encode(sample_prediction())


def test_the_names() -> None:
    assert list(FORMATS) == ["label-studio", "png", "coco", "polygon", "yolo"]
    with pytest.raises(SettingsError, match="unknown format 'voc': use label-studio, png, coco, polygon, yolo"):
        make_format("voc", CONTROL)


@pytest.mark.parametrize("name", FORMATS)
def test_an_image_without_regions_and_no_images(name: str, tmp_path: Path) -> None:
    output_format = make_format(name, CONTROL)
    record = output_format.encode(make_prediction(np.zeros((2, 3), np.int64))).record
    output_format.assemble([record], tmp_path / "one")
    output_format.assemble([], tmp_path / "none")
    assert (tmp_path / "one").is_dir()


@pytest.mark.parametrize("name", FORMATS)
def test_assembling_again_replaces_all_files(name: str, tmp_path: Path) -> None:
    output_format = make_format(name, CONTROL)
    records = [output_format.encode(make_prediction(LABELS, key)).record for key in "abc"]
    output_format.assemble(iter(records[:1]), tmp_path / "fresh")
    output_format.assemble(iter(records), tmp_path / "again")
    output_format.assemble(iter(records[:1]), tmp_path / "again")
    assert contents(tmp_path / "again") == contents(tmp_path / "fresh")


@pytest.mark.parametrize("name", ["png", "coco", "yolo"])
@pytest.mark.parametrize("key", ["../a", "a//b", "/a", "a/../b", "", "a/.", "a\\b", "a\0b"])
def test_a_key_that_leads_out_of_the_folder_is_refused(name: str, key: str) -> None:
    with pytest.raises(SettingsError, match="is not a file name: use letters, digits"):
        make_format(name, CONTROL).encode(make_prediction(LABELS, key))


@pytest.mark.parametrize(
    ("name", "file"), [("png", "a/b.c.png"), ("coco", "panoptic/a/b.c.png"), ("yolo", "labels/a/b.c.txt")]
)
def test_a_key_may_name_folders(name: str, file: str) -> None:
    assert list(make_format(name, CONTROL).encode(make_prediction(LABELS, "a/b.c")).files) == [file]


@pytest.mark.parametrize("name", ["coco", "yolo"])
def test_a_label_missing_in_the_labelling_config_is_named(name: str) -> None:
    output_format = make_format(name, replace(CONTROL, labels=("Region", "Cat")))
    with pytest.raises(
        SettingsError, match="'Background' is not in the labelling config, which has Region, Cat: add it"
    ):
        output_format.encode(make_prediction(LABELS))


def test_regions_without_a_label_are_called_unlabelled() -> None:
    control, image = replace(CONTROL, neutral_labels=(), labels=("Sky", "Cat")), make_prediction(LABELS)
    (prediction,) = image.predictions
    regions = [replace(region, label="") for region in prediction.regions]
    image = replace(image, predictions=[replace(prediction, regions=regions)])
    assert [region["category_id"] for region in make_format("coco", control).encode(image).record["regions"]] == [3] * 3
    (lines,) = make_format("yolo", control).encode(image).files.values()
    assert {line.split()[0] for line in lines.decode().splitlines()} == {"2"}
    assert {region["label"] for region in make_format("png", control).encode(image).record["segments"]} == {
        "unlabelled"
    }
    assert {region["label"] for region in make_format("polygon", control).encode(image).record["regions"]} == {
        "unlabelled"
    }


def test_a_control_without_labels_has_the_generic_ones() -> None:
    control = BrushControl("brush", "image", "$image", CLASSES)
    assert make_format("yolo", control) == make_format("yolo", CONTROL)


@pytest.mark.parametrize("name", ["polygon", "yolo"])
@pytest.mark.parametrize("tolerance", [-0.1, float("nan"), float("inf")])
def test_an_invalid_tolerance_is_refused(name: str, tolerance: float) -> None:
    with pytest.raises(
        SettingsError, match=r"tolerance of (-0.1|nan|inf) is not a distance in pixels: use 0 \(exact\)"
    ):
        make_format(name, CONTROL, tolerance)


@pytest.mark.parametrize("name", ["label-studio", "png", "coco"])
def test_a_format_without_polygons_takes_no_tolerance(name: str) -> None:
    with pytest.raises(
        SettingsError, match=f"the format {name} has no polygons: leave out --tolerance, or use polygon or yolo"
    ):
        make_format(name, CONTROL, 1.0)


@pytest.mark.parametrize("name", ["png", "coco", "polygon"])
def test_an_image_in_a_data_url_is_named_by_its_key(name: str) -> None:
    record = make_format(name, CONTROL).encode(make_prediction(LABELS, reference="data:image/png;base64,AAAA")).record
    assert "AAAA" not in str(record)
    assert record.get("image") == "one" or record["image"]["file_name"] == "one"
