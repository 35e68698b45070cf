"""Properties of all formats."""

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.builders.label_config import make_image_tag
from tests.builders.predictions import CLASSES, IMAGE_TAG, file_contents, make_prediction, sample_prediction
from walkcut.bulk.formats import FORMATS, POLYGON_FORMATS, CocoFormat, CocoPolygonFormat, YoloFormat, make_format
from walkcut.errors import SettingsError

LABELS = np.array([[1, 1, 0], [2, 2, 3]])


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_is_made_by_name_and_can_be_pickled(name: str) -> None:
    output_format = make_format(name, IMAGE_TAG)
    assert output_format.name == name
    sent = pickle.loads(pickle.dumps(output_format))
    assert sent == output_format
    assert sent.encode(sample_prediction()) == output_format.encode(sample_prediction())


def test_the_names() -> None:
    assert list(FORMATS) == ["label-studio", "png", "coco", "coco-polygon", "polygon", "yolo", "voc"]
    with pytest.raises(SettingsError, match="unknown format 'kitti': use label-studio, png, coco, coco-polygon, polyg"):
        make_format("kitti", IMAGE_TAG)


@pytest.mark.parametrize("name", FORMATS)
def test_an_image_without_regions_and_no_images(name: str, tmp_path: Path) -> None:
    output_format = make_format(name, IMAGE_TAG)
    record = output_format.encode(make_prediction(np.zeros((2, 3), np.int64))).record
    output_format.assemble([record], tmp_path / "one")
    output_format.assemble([], tmp_path / "none")
    assert (tmp_path / "one").is_dir()


@pytest.mark.parametrize("name", FORMATS)
def test_assembling_again_replaces_all_files(name: str, tmp_path: Path) -> None:
    output_format = make_format(name, IMAGE_TAG)
    records = [output_format.encode(make_prediction(LABELS, key)).record for key in "abc"]
    output_format.assemble(iter(records[:1]), tmp_path / "fresh")
    output_format.assemble(iter(records), tmp_path / "again")
    output_format.assemble(iter(records[:1]), tmp_path / "again")
    assert contents(tmp_path / "again") == contents(tmp_path / "fresh")


@pytest.mark.parametrize("name", ["png", "coco", "coco-polygon", "yolo", "voc"])
@pytest.mark.parametrize("key", ["../a", "a//b", "/a", "a/../b", "", "a/", "a\0b"])
def test_a_key_that_leads_out_of_the_folder_is_refused(name: str, key: str) -> None:
    with pytest.raises(SettingsError, match="is not a file name: use names without"):
        make_format(name, IMAGE_TAG).encode(make_prediction(LABELS, key))


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("png", "a 1/{}.png"),
        ("coco", "panoptic/a 1/{}.png"),
        ("yolo", "labels/a 1/{}.txt"),
        ("voc", "Annotations/a 1/{}.xml"),
    ],
)
@pytest.mark.parametrize("key", ["b.c", ".hidden", "图片 (1)", "...", "a\\b"])
def test_files_are_named_by_the_key(name: str, file: str, key: str) -> None:
    assert list(make_format(name, IMAGE_TAG).encode(make_prediction(LABELS, f"a 1/{key}")).files) == [file.format(key)]


@pytest.mark.parametrize("name", ["png", "coco", "polygon", "yolo", "voc"])
def test_a_record_maps_the_image_to_its_file_and_its_reference(name: str) -> None:
    image = make_prediction(LABELS, "a-1234", reference="https://e.org/a.jpg?x=1", name="cam/a.jpg")
    record = make_format(name, IMAGE_TAG).encode(image).record
    assert (record["image"], record["reference"]) == ("cam/a.jpg", "https://e.org/a.jpg?x=1")


@pytest.mark.parametrize("name", ["coco", "yolo"])
def test_a_label_missing_in_the_labelling_config_is_named(name: str) -> None:
    output_format = make_format(name, make_image_tag(neutral=("Region", "Region B"), labels=("Region", "Cat")))
    with pytest.raises(
        SettingsError, match="'Background' is not in the labelling config, which has Region, Cat: add it"
    ):
        output_format.encode(make_prediction(LABELS))


def test_regions_without_a_label_are_called_unlabelled() -> None:
    image_tag, image = make_image_tag(neutral=(), labels=("Sky", "Cat")), make_prediction(LABELS)
    (prediction,) = image.predictions
    regions = [replace(region, label="") for region in prediction.regions]
    image = replace(image, predictions=[replace(prediction, regions=regions)])
    assert [region["category_id"] for region in make_format("coco", image_tag).encode(image).record["regions"]] == [
        3
    ] * 3
    (lines,) = file_contents(make_format("yolo", image_tag).encode(image)).values()
    assert {line.split()[0] for line in lines.decode().splitlines()} == {"2"}
    assert {region["label"] for region in make_format("png", image_tag).encode(image).record["segments"]} == {
        "unlabelled"
    }
    assert {region["label"] for region in make_format("polygon", image_tag).encode(image).record["regions"]} == {
        "unlabelled"
    }


def test_a_control_without_labels_has_the_generic_ones() -> None:
    image_tag = make_image_tag("$image", CLASSES)
    assert make_format("yolo", image_tag) == make_format("yolo", IMAGE_TAG)


@pytest.mark.parametrize("name", POLYGON_FORMATS)
@pytest.mark.parametrize("tolerance", [-0.1, float("nan"), float("inf")])
def test_an_invalid_tolerance_is_refused(name: str, tolerance: float) -> None:
    with pytest.raises(
        SettingsError, match=r"tolerance of (-0.1|nan|inf) is not a distance in pixels: use 0 \(exact\)"
    ):
        make_format(name, IMAGE_TAG, tolerance)


@pytest.mark.parametrize("name", ["label-studio", "png", "coco", "voc"])
def test_a_format_without_polygons_takes_no_tolerance(name: str) -> None:
    with pytest.raises(
        SettingsError, match=f"the format {name} has no polygons: leave out --tolerance, or use coco-polygon or polygon"
    ):
        make_format(name, IMAGE_TAG, 1.0)


@pytest.mark.parametrize("name", ["png", "coco", "polygon", "yolo", "voc"])
def test_an_image_in_a_data_url_is_named_by_its_key(name: str) -> None:
    image = make_prediction(LABELS, reference="data:image/png;base64,AAAA", name="")
    record = make_format(name, IMAGE_TAG).encode(image).record
    assert "AAAA" not in str(record)
    assert record["image"] == "one"


def test_classes_without_a_category_are_numbered_in_order() -> None:
    image_tag = make_image_tag("image", (), labels=("Sky", "Cat"), name="i")
    assert make_format("yolo", image_tag) == YoloFormat({"Sky": 0, "Cat": 1, "unlabelled": 2})
    assert make_format("coco", image_tag) == CocoFormat({"Sky": 1, "Cat": 2, "unlabelled": 3})
    assert make_format("coco-polygon", image_tag, 2.0) == CocoPolygonFormat({"Sky": 1, "Cat": 2, "unlabelled": 3}, 2.0)


@pytest.mark.parametrize(("name", "kind"), [("yolo", YoloFormat), ("coco", CocoFormat)])
def test_classes_have_the_numbers_of_the_labelling_config(name: str, kind: type[YoloFormat | CocoFormat]) -> None:
    categories = {"Sky": 2, "Cat": 0, "Finer": 1}
    image_tag = make_image_tag("image", (), labels=("Sky", "Cat", "New"), categories=categories, name="i")
    output_format = make_format(name, image_tag)
    assert isinstance(output_format, kind)
    assert output_format.classes == {"Sky": 2, "Cat": 0, "New": 3, "unlabelled": 4}


@pytest.mark.parametrize("name", ["yolo", "coco"])
def test_labels_with_the_same_category_are_named(name: str) -> None:
    image_tag = make_image_tag(
        "image", (), labels=("Sky", "Cat", "Dog"), categories={"Sky": 7, "Cat": 0, "Dog": 7}, name="i"
    )
    with pytest.raises(
        SettingsError, match=r"the labels 'Sky' and 'Dog' have the same category 7 .*: give each a number"
    ):
        make_format(name, image_tag)


@pytest.mark.parametrize("number", [-1, 10_000])
def test_a_class_number_that_yolo_does_not_have_is_named(number: int) -> None:
    image_tag = make_image_tag("image", (), labels=("Sky",), categories={"Sky": number}, name="i")
    with pytest.raises(SettingsError, match=f"numbers from 0 to 9999, but the label 'Sky' has the category {number}: "):
        make_format("yolo", image_tag)
    make_format("coco", image_tag)
