import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from defusedxml.ElementTree import fromstring
from hypothesis import given
from hypothesis import strategies as st

from tests.builders.predictions import expected_label_map, label_maps, make_prediction
from walkcut.bulk.formats import VocFormat
from walkcut.bulk.formats.voc import image_id
from walkcut.bulk.items import ItemPrediction

FORMAT = VocFormat()


def document(image: ItemPrediction) -> bytes:
    (content,) = (content for name, content in FORMAT.encode(image).files.items() if name.endswith(".xml"))
    assert isinstance(content, bytes)
    return content


def objects(content: bytes) -> list[tuple[str, list[int]]]:
    """Return the name and the box of each object, as readers do that count from 0 and leave the last pixel out."""
    found = []
    for element in fromstring(content).iter("object"):
        sides = (element.findtext(f"bndbox/{side}", "") for side in ("xmin", "ymin", "xmax", "ymax"))
        left, top, right, bottom = map(int, sides)
        found.append((element.findtext("name", ""), [left - 1, top - 1, right, bottom]))
    return found


def named(label: str) -> ItemPrediction:
    """Return an image with one region of a label."""
    image = make_prediction(np.ones((2, 3), np.int64))
    (prediction,) = image.predictions
    return replace(image, predictions=[replace(prediction, regions=[replace(prediction.regions[0], label=label)])])


def write(images: list[ItemPrediction], out: Path) -> None:
    """Write a data set, as a run does."""
    records = []
    for encoded in map(FORMAT.encode, images):
        for name, content in encoded.files.items():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (out / name).symlink_to(content) if isinstance(content, Path) else (out / name).write_bytes(content)
        records.append(encoded.record)
    FORMAT.assemble(iter(records), out)


def read(root: Path, image_set: str) -> list[tuple[Path, Path]]:
    """Return the image and the annotation of each id, as torchvision's VOCDetection finds them."""
    with (root / "ImageSets" / "Main" / f"{image_set}.txt").open(encoding="utf-8") as lines:
        names = [line.strip() for line in lines.readlines()]
    return [(root / "JPEGImages" / f"{name}.jpg", root / "Annotations" / f"{name}.xml") for name in names]


def test_an_annotation() -> None:
    image = make_prediction(np.array([[0, 0, 0], [0, 1, 1]]), "cam1/f1")
    assert (
        document(image).decode()
        == """<annotation>
  <folder>JPEGImages</folder>
  <filename>cam1/f1.jpg</filename>
  <size>
    <width>3</width>
    <height>2</height>
    <depth>3</depth>
  </size>
  <segmented>0</segmented>
  <object>
    <name>Background</name>
    <pose>Unspecified</pose>
    <truncated>0</truncated>
    <difficult>0</difficult>
    <bndbox>
      <xmin>2</xmin>
      <ymin>2</ymin>
      <xmax>3</xmax>
      <ymax>2</ymax>
    </bndbox>
  </object>
</annotation>
"""
    )


@given(label_maps)
def test_boxes_are_those_of_the_regions(labels: np.ndarray) -> None:
    image = make_prediction(labels)
    numbers = expected_label_map(image)
    for index, (name, (left, top, right, bottom)) in enumerate(objects(document(image)), 1):
        y, x = np.nonzero(numbers == index)
        assert (left, top, right, bottom) == (x.min(), y.min(), x.max() + 1, y.max() + 1)
        assert name == image.predictions[-1].regions[index - 1].label


@given(st.text(st.characters(exclude_categories=("C", "Zl", "Zp"))))
def test_any_text_is_a_label(label: str) -> None:
    ((name, _),) = objects(document(named(label)))
    assert name == (label or "unlabelled")


@pytest.mark.parametrize("label", ["a\0b", "a\x1fb", "a\nb", "a\rb", "a\x85b", "a\u2028b", "a\ud800b", "a\uffffb"])
def test_characters_that_xml_cannot_hold_become_underscores(label: str) -> None:
    assert objects(document(named(label)))[0][0] == "a_b"


@pytest.mark.parametrize("key", ["cam1/f1", "my photo (1).jpg", "图片", "a&b <c>", ".hidden", "inner space/ x"])
def test_the_id_is_the_key(key: str) -> None:
    assert image_id(key) == key
    assert fromstring(document(make_prediction(np.ones((2, 3), np.int64), key))).findtext("filename") == f"{key}.jpg"


@pytest.mark.parametrize("key", ["a\nb", "caf\udce9", " a", "a ", "a/\x1f"])
def test_a_key_that_readers_would_change_has_a_digest_as_id(key: str) -> None:
    assert len(image_id(key)) == 16
    assert image_id(key).isalnum()
    assert image_id(key) != image_id(key + "x\n")


def test_readers_find_images_and_annotations(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    keys = ["f1", "cam1/f1", "图 片", "a\nb", "caf\udce9", " x ", "c.d"]
    (tmp_path / "photo.png").touch()
    images = [make_prediction(np.ones((2, 3), np.int64), key, reference=str(tmp_path / "photo.png")) for key in keys]
    write(images, tmp_path / "out")
    found = read(tmp_path / "out", "trainval")
    assert len({image for image, _ in found}) == len(keys)
    for image, annotation in found:
        assert image.samefile(tmp_path / "photo.png")
        assert str(image).endswith(f"/JPEGImages/{fromstring(annotation.read_bytes()).findtext('filename')}")
    assert caplog.messages == []


def test_images_that_are_not_linked_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write([make_prediction(np.ones((2, 3), np.int64), key) for key in "ab"], tmp_path)
    assert caplog.messages == ['2 images are not in JPEGImages/: put each there under its "file" in images.jsonl']
    rows: list[dict[str, Any]] = [json.loads(line) for line in (tmp_path / "images.jsonl").read_text().splitlines()]
    assert [(row["file"], row["annotation"], row["linked"]) for row in rows] == [
        ("JPEGImages/a.jpg", "Annotations/a.xml", False),
        ("JPEGImages/b.jpg", "Annotations/b.xml", False),
    ]
