"""What all formats have in common."""

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.builders.labelled import CONTROL, NAMES, labelled, sample
from walkcut.bulk.formats import FORMATS, FormatOptions, make_format
from walkcut.errors import SettingsError
from walkcut.labelstudio import BrushControl

LABELS = np.array([[1, 1, 0], [2, 2, 3]])
OPTIONS = FormatOptions(CONTROL)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_goes_by_its_name_and_to_another_process(name: str) -> None:
    made = make_format(name, OPTIONS)
    assert made.name == name
    sent = pickle.loads(pickle.dumps(made))
    assert sent == made
    assert sent.encode(sample()) == made.encode(sample())


def test_the_names() -> None:
    assert list(FORMATS) == ["label-studio", "png", "coco", "polygon", "yolo"]
    with pytest.raises(SettingsError, match="no format 'voc'; use label-studio, png, coco, polygon, yolo"):
        make_format("voc", OPTIONS)


@pytest.mark.parametrize("name", FORMATS)
def test_a_image_without_regions_and_none_at_all(name: str, tmp_path: Path) -> None:
    made = make_format(name, OPTIONS)
    record = made.encode(labelled(np.zeros((2, 3), np.int64))).record
    made.assemble([record], tmp_path / "one")
    made.assemble([], tmp_path / "none")
    assert (tmp_path / "one").is_dir()


@pytest.mark.parametrize("name", FORMATS)
def test_assembling_again_replaces_what_there_is_and_leaves_nothing_else(name: str, tmp_path: Path) -> None:
    made = make_format(name, OPTIONS)
    records = [made.encode(labelled(LABELS, key)).record for key in "abc"]
    made.assemble(iter(records[:1]), tmp_path / "fresh")
    made.assemble(iter(records), tmp_path / "again")
    made.assemble(iter(records[:1]), tmp_path / "again")
    assert contents(tmp_path / "again") == contents(tmp_path / "fresh")


@pytest.mark.parametrize("name", ["png", "coco", "yolo"])
@pytest.mark.parametrize("key", ["../a", "a//b", "/a", "a/../b", "", "a/.", "a\\b", "a\0b"])
def test_a_key_that_leads_out_of_the_folder_is_refused(name: str, key: str) -> None:
    with pytest.raises(SettingsError, match="is no file name: use letters, digits"):
        make_format(name, OPTIONS).encode(labelled(LABELS, key))


@pytest.mark.parametrize(
    ("name", "file"), [("png", "a/b.c.png"), ("coco", "panoptic/a/b.c.png"), ("yolo", "labels/a/b.c.txt")]
)
def test_a_key_may_name_folders(name: str, file: str) -> None:
    assert list(make_format(name, OPTIONS).encode(labelled(LABELS, "a/b.c")).files) == [file]


@pytest.mark.parametrize("name", ["coco", "yolo"])
def test_a_label_that_the_labelling_config_lacks_is_named(name: str) -> None:
    made = make_format(name, FormatOptions(replace(CONTROL, labels=("Region", "Cat"))))
    with pytest.raises(
        SettingsError, match="'Background' is not in the labelling config, which has Region, Cat: add it"
    ):
        made.encode(labelled(LABELS))


def test_a_target_without_its_labels_has_the_neutral_ones() -> None:
    control = BrushControl("brush", "image", "image", NAMES)
    assert make_format("yolo", FormatOptions(control)) == make_format("yolo", OPTIONS)


@pytest.mark.parametrize("name", ["polygon", "yolo"])
@pytest.mark.parametrize("tolerance", [-0.1, float("nan"), float("inf")])
def test_a_tolerance_that_is_no_distance_is_refused(name: str, tolerance: float) -> None:
    with pytest.raises(SettingsError, match=r"tolerance of (-0.1|nan|inf) is no distance in pixels: use 0 \(exact\)"):
        make_format(name, FormatOptions(CONTROL, tolerance))


@pytest.mark.parametrize("name", ["png", "coco", "polygon"])
def test_a_image_inside_its_reference_goes_by_its_key(name: str) -> None:
    record = make_format(name, OPTIONS).encode(labelled(LABELS, reference="data:image/png;base64,AAAA")).record
    assert "AAAA" not in str(record)
    assert record.get("image") == "one" or record["image"]["file_name"] == "one"
