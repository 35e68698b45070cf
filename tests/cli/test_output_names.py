"""Output folders as other tools read them: names, folders, classes."""

import glob
import json
import os
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
import yaml  # type: ignore[import-untyped]
from click.testing import Result
from defusedxml.ElementTree import fromstring
from PIL import Image
from pycocotools.coco import COCO

from tests.builders.bulk import write_image
from tests.builders.bulk_commands import walkcut
from tests.builders.fake_label_studio import FakeLabelStudio
from tests.builders.feedback import CONFIG

# pycocotools' decoder is written for numpy 1.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

NAMES = [
    "my photo (1).jpg.png",
    "图片一.png",
    "Café.png",
    "a.b.c.PNG",
    "same.png",
    "same.bmp",
    os.fsdecode(b"caf\xe9.png"),
    "cam1/f1.png",
    "cam2/f1.png",
    "set 1/images/f1.png",
]
CATEGORIES = (
    '<View><Image name="image" value="$image"/><BrushLabels name="b" toName="image">'
    '<Label value="safe_b" category="2"/><Label value="safe_h" category="0"/>'
    '<Label value="n_safe_h" category="1"/></BrushLabels></View>'
)


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WALKCUT_STATE_DIR", str(tmp_path / "state"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name in NAMES:
        write_image(tmp_path / "photos" / name)
    return tmp_path / "photos"


def run(*arguments: object) -> Result:
    result = walkcut(*arguments, "--workers", 1)
    assert result.exit_code == 0, result.output
    return result


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def training_images(folder: Path) -> dict[str, str]:
    """Return the labels of each image that ultralytics finds (`BaseDataset.get_img_files`, `img2label_paths`)."""
    train = str(folder / yaml.safe_load((folder / "data.yaml").read_text())["train"])
    found = glob.glob(f"{train}/**/*.*", recursive=True)
    images = [file for file in found if file.rpartition(".")[-1].lower() in {"bmp", "jpeg", "jpg", "png", "webp"}]
    return {
        image: Path("/labels/".join(image.rsplit("/images/", 1)).rsplit(".", 1)[0] + ".txt").read_text()
        for image in images
    }


def test_a_yolo_folder_is_complete(photos: Path, tmp_path: Path) -> None:
    run("prelabel", photos, "--out", tmp_path / "out", "--format", "yolo")
    labels = training_images(tmp_path / "out")
    assert sorted(os.path.realpath(image) for image in labels) == sorted(str(photos / name) for name in NAMES)
    assert all(labels.values())
    assert (tmp_path / "out" / "data.yaml").read_text().startswith("train: images")
    own_names = {os.path.relpath(image, tmp_path / "out" / "images") for image in labels}
    assert len(own_names & set(NAMES)) == len(NAMES) - 1  # one of the two named `same`
    rows = lines(tmp_path / "out" / "images.jsonl")
    assert {str(tmp_path / "out" / row["file"]) for row in rows} == set(labels)
    assert {row["image"] for row in rows} == set(NAMES)
    assert (tmp_path / "out" / "labels" / "cam1" / "f1.txt").exists()

    run("re-export", tmp_path / "out", "--out", tmp_path / "again")
    again = training_images(tmp_path / "again")
    assert list(again.values()) == [labels[image.replace("/again/", "/out/")] for image in again]


def test_a_voc_folder_is_complete(photos: Path, tmp_path: Path) -> None:
    run("prelabel", photos, "--out", tmp_path / "out", "--format", "png")
    for _ in range(2):  # the second run finds all images done, and assembles again
        run("re-export", tmp_path / "out", "--out", tmp_path / "voc", "--format", "voc")
        ids = (tmp_path / "voc" / "ImageSets" / "Main" / "trainval.txt").read_text("utf-8").splitlines()
        found = {os.path.realpath(tmp_path / "voc" / "JPEGImages" / f"{identity}.jpg") for identity in ids}
        assert found == {str(photos / name) for name in NAMES}
        for identity in ids:
            annotation = fromstring((tmp_path / "voc" / "Annotations" / f"{identity}.xml").read_bytes())
            assert annotation.findtext("filename") == f"{identity}.jpg"
            assert {element.findtext("name") for element in annotation.iter("object")} == {"Region"}
    run("prelabel", photos, "--out", tmp_path / "direct", "--format", "voc")
    folders = [tmp_path / name / "Annotations" for name in ("voc", "direct")]
    files = [{path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.xml")} for folder in folders]
    assert files[0] == files[1]


def test_png_files_have_the_images_names(photos: Path, tmp_path: Path) -> None:
    run("prelabel", photos, "--out", tmp_path / "out", "--format", "png")
    rows = lines(tmp_path / "out" / "labels.jsonl")
    assert {row["image"] for row in rows} == set(NAMES)
    assert {row["reference"] for row in rows} == {str(photos / name) for name in NAMES}
    for row in rows:
        with Image.open(tmp_path / "out" / row["file"]) as image:
            assert np.asarray(image).max() == len(row["segments"])
        own = str(PurePosixPath(row["image"]).with_suffix(".png"))
        assert row["file"] == own or PurePosixPath(row["image"]).stem == "same"


def test_coco_names_are_relative_to_the_source(photos: Path, tmp_path: Path) -> None:
    run("prelabel", photos, "--out", tmp_path / "out", "--format", "coco")
    coco = COCO(tmp_path / "out" / "annotations.json")
    assert {image["file_name"] for image in coco.imgs.values()} == set(NAMES)
    panoptic = json.loads((tmp_path / "out" / "panoptic.json").read_text())
    files = {entry["image_id"]: entry["file_name"] for entry in panoptic["annotations"]}
    for number, image in coco.imgs.items():
        assert (photos / image["file_name"]).exists()
        with Image.open(tmp_path / "out" / "panoptic" / files[number]) as segments:
            assert segments.size == (image["width"], image["height"])
        own = str(PurePosixPath(image["file_name"]).with_suffix(".png"))
        assert files[number] == own or PurePosixPath(own).stem == "same"


def test_coco_names_may_be_relative_to_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("train/a.png", "val/a.png"):
        write_image(tmp_path / "set" / name)
    monkeypatch.chdir(tmp_path / "set")
    arguments = ("prelabel", "train", "val", "--format", "coco")
    run(*arguments, "--out", tmp_path / "clash")
    (warning,) = caplog.messages
    assert warning.startswith("1 images have a new file_name, as theirs is taken")
    assert "--path-root with a folder above all sources keeps the names" in warning
    rows = {row["image"]: row["reference"] for row in lines(tmp_path / "clash" / "images.jsonl")}
    assert len(rows) == 2
    assert rows["a.png"] == str(tmp_path / "set" / "train" / "a.png")

    run(*arguments, "--out", tmp_path / "out", "--path-root", ".")
    run("re-export", tmp_path / "clash", "--out", tmp_path / "again", "--path-root", tmp_path / "set")
    for folder in ("out", "again"):
        images = COCO(tmp_path / folder / "annotations.json").imgs.values()
        assert [image["file_name"] for image in images] == ["train/a.png", "val/a.png"]

    refused = walkcut(*arguments, "--out", tmp_path / "out", "--path-root", "train")
    assert refused.exit_code == 1
    assert "path root was" in refused.stderr
    outside = walkcut(*arguments, "--out", tmp_path / "outside", "--path-root", "train", "--workers", 1)
    assert outside.exit_code == 1
    assert "it is not below" in (tmp_path / "outside" / "failed.jsonl").read_text()
    unused = walkcut("prelabel", "train", "--out", tmp_path / "unused", "--path-root", ".")
    assert "the format label-studio has no names of images: leave out --path-root" in unused.stderr


def test_images_that_label_studio_serves_are_named_by_their_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("cam 1/图.png", "cam2/f1.png"):
        write_image(tmp_path / "root" / name)
    monkeypatch.setenv("WALKCUT_LOCAL_FILES_ROOT", str(tmp_path / "root"))
    references = ["/data/local-files/?d=cam%201/%E5%9B%BE.png", "/data/local-files/?d=cam2/f1.png"]
    (tmp_path / "tasks.json").write_text(json.dumps([{"data": {"image": reference}} for reference in references]))
    run("prelabel", tmp_path / "tasks.json", "--out", tmp_path / "out", "--format", "yolo")
    rows = lines(tmp_path / "out" / "images.jsonl")
    assert [(row["labels"], row["file"], row["reference"]) for row in rows] == [
        ("labels/cam 1/图.txt", "images/cam 1/图.png", references[0]),
        ("labels/cam2/f1.txt", "images/cam2/f1.png", references[1]),
    ]
    assert caplog.messages == ['2 images are not in images/: put each there under its "file" in images.jsonl']
    assert (tmp_path / "out" / "data.yaml").read_text().startswith("# 2 images are not in images/")


def test_images_of_a_projects_tasks_are_named_by_their_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WALKCUT_LOCAL_FILES_ROOT", str(tmp_path / "root"))
    monkeypatch.setenv("LABEL_STUDIO_URL", "http://label-studio.test")
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "0123456789abcdef")
    names = ["cam1/f1.png", "cam2/f1.png", "cam1/f1.bmp"]
    for name in names:
        write_image(tmp_path / "root" / name)
    tasks = [{"id": n, "data": {"image": f"/data/local-files/?d={name}"}} for n, name in enumerate(names, 9)]
    config = CONFIG.replace("$photo", "$image")
    fake = FakeLabelStudio(tasks, config)
    monkeypatch.setattr("walkcut.serving.backend.LabelStudioClient", lambda access, ca_bundle: fake)
    (tmp_path / "config.xml").write_text(config)
    run("prelabel", "--project", 3, "--out", tmp_path / "run")
    again = ("re-export", tmp_path / "run", "--label-config", tmp_path / "config.xml", "--out", tmp_path / "out")
    run(*again, "--format", "png")
    rows = lines(tmp_path / "out" / "labels.jsonl")
    assert sorted(row["image"] for row in rows) == sorted(names)
    assert {"cam1/f1.png", "cam2/f1.png"} <= {row["file"] for row in rows}
    assert len({row["file"] for row in rows}) == 3


@pytest.mark.parametrize("output_format", ["yolo", "coco"])
def test_classes_have_label_studios_numbers(photos: Path, tmp_path: Path, output_format: str) -> None:
    (tmp_path / "config.xml").write_text(CATEGORIES)
    run("prelabel", photos / "same.png", "--out", tmp_path / "out", "--format", output_format,
        "--label-config", tmp_path / "config.xml")  # fmt: skip
    if output_format == "yolo":
        names = yaml.safe_load((tmp_path / "out" / "data.yaml").read_text())["names"]
    else:
        names = {number: entry["name"] for number, entry in COCO(tmp_path / "out" / "annotations.json").cats.items()}
    assert names == {0: "safe_h", 1: "n_safe_h", 2: "safe_b", 3: "unlabelled"}


def test_classes_with_the_same_number_are_refused_before_the_run(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "config.xml").write_text(CATEGORIES.replace('"2"', '"0"'))
    result = walkcut("prelabel", photos, "--out", tmp_path / "out", "--format", "yolo",
                     "--label-config", tmp_path / "config.xml")  # fmt: skip
    assert result.exit_code == 1
    assert (
        "the labels 'safe_b' and 'safe_h' have the same category 0 in the labelling config: give each" in result.stderr
    )
    assert not (tmp_path / "out").exists()
