from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.builders.bsds500 import ROOT, needs_photographs
from tests.builders.ground_truth import damage, save_image, save_labels, save_people
from walkcut.errors import ImageDecodeError, SettingsError
from walkcut.evaluation.datasets import DATASETS, Dataset, read_dataset


@dataclass(frozen=True)
class Files:
    """The files of one image of a validation split, and the classes of numbers in its truth."""

    image: str
    truth: str
    classes: dict[int, str]
    names: str = ""


COCO = ("images/val2017/000000000139.jpg", "annotations/val2017/000000000139.png")
SETS = {
    "coco-stuff-27": Files(
        *COCO,
        {0: "person-things", 71: "electronic-things", 90: "indoor-things", 91: "textile-stuff", 181: "solid-stuff"},
        names="Coco164kFull_Stuff_Coarse_7.txt",
    ),
    "coco-object": Files(
        *COCO,
        {0: "person", 12: "stop sign", 89: "toothbrush", 91: "background", 181: "background", 255: "background"},
        names="Coco164kFull_Stuff_Coarse_7.txt",
    ),
    "cityscapes-27": Files(
        "leftImg8bit/val/frankfurt/frankfurt_000000_000294_leftImg8bit.png",
        "gtFine/val/frankfurt/frankfurt_000000_000294_gtFine_labelIds.png",
        {7: "road", 8: "sidewalk", 33: "bicycle"},
    ),
    "ade20k-150": Files(
        "images/validation/ADE_val_00000001.jpg",
        "annotations/validation/ADE_val_00000001.png",
        {1: "wall", 2: "building", 150: "flag"},
    ),
    "voc": Files(
        "JPEGImages/2007_000033.jpg",
        "SegmentationClass/2007_000033.png",
        {0: "background", 1: "aeroplane", 15: "person", 20: "tvmonitor"},
        names="ImageSets/Segmentation/val.txt",
    ),
    "context": Files(
        "JPEGImages/2008_000002.jpg",
        "SegmentationClassContext/2008_000002.png",
        {0: "background", 1: "aeroplane", 59: "wood"},
        names="ImageSets/SegmentationContext/val.txt",
    ),
}
IGNORED = {"coco-stuff-27": {255}, "cityscapes-27": set(range(7)), "ade20k-150": {0}, "voc": {255}}
HOMES = {
    "coco-stuff-27": "cocostuff",
    "coco-object": "coco",
    "cityscapes-27": "cityscapes",
    "ade20k-150": "ADEChallengeData2016",
    "voc": "VOCdevkit/VOC2012",
    "context": "VOCdevkit/VOC2010",
}


def striped(numbers: list[int]) -> np.ndarray:
    """A truth of the image's size, a row for each label."""
    return np.resize(np.array(numbers, np.uint8)[:, None], (18, 1)).repeat(20, axis=1)


def make(name: str, home: Path) -> None:
    files = SETS[name]
    save_image(home / files.image)
    save_labels(home / files.truth, striped([*files.classes, *IGNORED.get(name, ())]))
    if files.names:
        (home / files.names).parent.mkdir(parents=True, exist_ok=True)
        (home / files.names).write_text(f"{Path(files.image).stem}\n")


def make_bsds(home: Path, people: int = 2) -> None:
    save_image(home / "images/val/3096.jpg")
    save_people(home / "groundTruth/val/3096.mat", [striped([1, 2 + person]) for person in range(people)])


def make_folder(root: Path, *labels: str, classes: str = "") -> None:
    save_image(root / "images/cat.png")
    for label in labels:
        save_labels(root / label, striped([0, 1, 255]))
    if classes:
        (root / "classes.txt").write_text(classes)


@pytest.mark.parametrize("name", SETS)
def test_each_number_of_a_truth_becomes_its_class(name: str, tmp_path: Path) -> None:
    make(name, tmp_path)
    dataset = read_dataset(name, tmp_path)
    (example,) = dataset.examples
    image, (truth,) = example.read()
    expected = [*SETS[name].classes.values(), *("ignored" for _ in IGNORED.get(name, ()))]
    names = [*dataset.classes, "ignored"]  # ignored pixels are -1
    assert image.shape == (18, 20, 3)
    assert [names[label] for label in truth[: len(expected), 0]] == expected
    assert not dataset.partitions


@pytest.mark.parametrize("name", SETS)
def test_the_folder_that_the_archive_unpacks_to_may_be_kept(name: str, tmp_path: Path) -> None:
    make(name, tmp_path / HOMES[name])
    assert len(read_dataset(name, tmp_path).examples) == 1


@pytest.mark.parametrize(
    ("name", "classes", "background"),
    [
        ("coco-stuff-27", 27, None),
        ("coco-object", 81, 80),
        ("cityscapes-27", 27, None),
        ("ade20k-150", 150, None),
        ("voc", 21, 20),
        ("context", 60, 59),
    ],
)
def test_a_background_is_the_last_class(name: str, classes: int, background: int | None, tmp_path: Path) -> None:
    make(name, tmp_path)
    dataset = read_dataset(name, tmp_path)
    assert (len(dataset.classes), dataset.background) == (classes, background)


def test_coco_superclasses_are_12_of_things_and_then_15_of_stuff(tmp_path: Path) -> None:
    make("coco-stuff-27", tmp_path)
    kinds = [name.rpartition("-")[2] for name in read_dataset("coco-stuff-27", tmp_path).classes]
    assert kinds == ["things"] * 12 + ["stuff"] * 15


def test_names_are_those_of_the_files_without_folder_and_ending(tmp_path: Path) -> None:
    make("cityscapes-27", tmp_path)
    assert read_dataset("cityscapes-27", tmp_path).examples[0].name == "frankfurt_000000_000294"


def test_a_list_decides_which_images_count(tmp_path: Path) -> None:
    make("voc", tmp_path)
    save_image(tmp_path / "JPEGImages/2007_000001.jpg")
    assert [example.name for example in read_dataset("voc", tmp_path).examples] == ["2007_000033"]


def test_without_a_list_all_images_of_the_split_come_in_order(tmp_path: Path) -> None:
    make("ade20k-150", tmp_path)
    for split, number in [("validation", 0), ("training", 2)]:
        save_image(tmp_path / f"images/{split}/ADE_{number}.jpg")
        save_labels(tmp_path / f"annotations/{split}/ADE_{number}.png", striped([1]))
    assert [example.name for example in read_dataset("ade20k-150", tmp_path).examples] == ["ADE_0", "ADE_val_00000001"]
    assert [example.name for example in read_dataset("ade20k-150", tmp_path, "train").examples] == ["ADE_2"]


@pytest.mark.parametrize("home", ["", "BSR/BSDS500/data"])
def test_bsds_has_the_partitions_of_several_people(home: str, tmp_path: Path) -> None:
    make_bsds(tmp_path / home, people=3)
    dataset = read_dataset("bsds500", tmp_path)
    _, truths = dataset.examples[0].read()
    assert dataset.partitions
    assert dataset.background is None
    assert [truth[:2, 0].tolist() for truth in truths] == [[1, 2], [1, 3], [1, 4]]


@needs_photographs
def test_real_bsds_images_have_truths_of_their_size() -> None:
    dataset = read_dataset("bsds500", ROOT)
    assert len(dataset.examples) == 100
    for example in dataset.examples[::25]:
        image, truths = example.read()
        assert sorted(image.shape) == [3, 321, 481]
        assert len(truths) >= 4
        assert all(truth.min() == 1 for truth in truths)


def test_a_folder_with_classes(tmp_path: Path) -> None:
    make_folder(tmp_path, "labels/cat.png", classes="sky\nbackground\n")
    dataset = read_dataset("folder", tmp_path)
    _, (truth,) = dataset.examples[0].read()
    assert (dataset.classes, dataset.background) == (("sky", "background"), 1)
    assert truth[:3, 0].tolist() == [0, 1, -1]


def test_a_folder_without_classes_may_have_several_peoples_partitions(tmp_path: Path) -> None:
    make_folder(tmp_path, "labels/cat.1.png", "labels/cat.2.png", "labels/other.1.png")
    (tmp_path / "images/cat.txt").write_text("no image")
    dataset = read_dataset("folder", tmp_path)
    _, truths = dataset.examples[0].read()
    assert dataset.partitions
    assert [truth[:3, 0].tolist() for truth in truths] == [[0, 1, 255]] * 2


def test_a_folder_may_have_splits(tmp_path: Path) -> None:
    for split in ["val", "test"]:
        save_image(tmp_path / f"images/{split}/{split}.png")
        save_labels(tmp_path / f"labels/{split}/{split}.png", striped([0]))
    assert [example.name for example in read_dataset("folder", tmp_path, "test").examples] == ["test"]


def test_beyond_255_classes_a_folder_ignores_65535(tmp_path: Path) -> None:
    make_folder(tmp_path, classes="\n".join(f"class {number}" for number in range(300)))
    save_labels(tmp_path / "labels/cat.png", np.resize(np.array([255, 299, 65535], np.uint16), (18, 20)))
    _, (truth,) = read_dataset("folder", tmp_path).examples[0].read()
    assert np.unique(truth).tolist() == [-1, 255, 299]


@pytest.mark.parametrize("name", SETS)
def test_the_files_missing_in_an_empty_folder_are_named(name: str, tmp_path: Path) -> None:
    path = SETS[name].names or SETS[name].image.partition("/")[0]
    with pytest.raises(SettingsError, match=rf"does not hold {name}: put .*{path}.* there, from http"):
        read_dataset(name, tmp_path)


@pytest.mark.parametrize("name", SETS)
def test_a_missing_truth_is_named(name: str, tmp_path: Path) -> None:
    make(name, tmp_path)
    (tmp_path / SETS[name].truth).unlink()
    message = rf"lacks 1 files: .*{Path(SETS[name].truth).name}; get the images of {name} and their truths from http"
    with pytest.raises(SettingsError, match=message):
        read_dataset(name, tmp_path)


def test_a_split_without_images_is_refused(tmp_path: Path) -> None:
    make("ade20k-150", tmp_path)
    (tmp_path / SETS["ade20k-150"].image).unlink()
    with pytest.raises(SettingsError, match=r"lacks all images; get the images of ade20k-150 and their truths from"):
        read_dataset("ade20k-150", tmp_path)


def test_only_the_first_missing_files_are_named(tmp_path: Path) -> None:
    make("voc", tmp_path)
    (tmp_path / "ImageSets/Segmentation/val.txt").write_text("a\nb\n2007_000033\nc\n")
    with pytest.raises(SettingsError, match=r"6 files: [^,]*a\.jpg, [^,]*a\.png, [^,]*b\.jpg, …"):
        read_dataset("voc", tmp_path)


@pytest.mark.parametrize(
    ("name", "split", "message"),
    [
        ("imagenet", "val", f"unknown data set 'imagenet': choose one of {', '.join(DATASETS)}"),
        ("cityscapes-27", "test", "cityscapes-27 has no truth for a split 'test': choose one of val, train"),
    ],
)
def test_what_does_not_exist_cannot_be_read(name: str, split: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=message):
        read_dataset(name, tmp_path, split)


@pytest.mark.parametrize(
    ("images", "labels", "classes", "message"),
    [
        ([], [], "", "holds no images: put STEM.jpg"),
        (["cat.png", "dog.png"], ["cat.png"], "", "holds no truth for 1 images: dog.png; put STEM.png"),
        (["cat.png", "cat.jpg"], ["cat.png"], "", "several images of one stem: cat; rename"),
        (["cat.png"], ["cat.1.png", "cat.2.png"], "sky\n", "several truths for cat.png, but classes.txt"),
    ],
)
def test_a_folder_must_be_complete(
    images: list[str], labels: list[str], classes: str, message: str, tmp_path: Path
) -> None:
    for image in images:
        save_image(tmp_path / "images" / image)
    for label in labels:
        save_labels(tmp_path / "labels" / label, striped([0]))
    if classes:
        (tmp_path / "classes.txt").write_text(classes)
    with pytest.raises(SettingsError, match=message):
        read_dataset("folder", tmp_path)


def one_folder(root: Path) -> Dataset:
    make_folder(root, "labels/cat.png")
    return read_dataset("folder", root)


def test_a_truth_of_another_size_is_refused(tmp_path: Path) -> None:
    dataset = one_folder(tmp_path)
    save_labels(tmp_path / "labels/cat.png", np.zeros((20, 18), np.uint8))
    with pytest.raises(ImageDecodeError, match=r"cat.png has 18 x 20 pixels, but its image .*cat.png has 20 x 18"):
        dataset.examples[0].read()


def test_pixels_are_read_late(tmp_path: Path) -> None:
    make_folder(tmp_path, "labels/cat.png")
    damage(tmp_path / "labels/cat.png")
    (example,) = read_dataset("folder", tmp_path).examples
    with pytest.raises(ImageDecodeError, match=r"ground truth .*cat.png cannot be read"):
        example.read()


def test_a_damaged_bsds_file_is_named(tmp_path: Path) -> None:
    make_bsds(tmp_path)
    (tmp_path / "groundTruth/val/3096.mat").write_bytes(b"not MATLAB's")
    with pytest.raises(ImageDecodeError, match=r"ground truth .*3096.mat cannot be read"):
        read_dataset("bsds500", tmp_path)


def test_the_image_is_read_in_colour(tmp_path: Path) -> None:
    (example,) = one_folder(tmp_path).examples
    with Image.open(example.image) as image:
        np.testing.assert_array_equal(example.read()[0], np.asarray(image))
