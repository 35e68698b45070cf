import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from tests.builders.predictions import (
    CLASSES,
    NUMBERS,
    file_contents,
    fill_even_odd,
    iou,
    label_maps,
    make_prediction,
    sample_prediction,
)
from walkcut.bulk.formats import YoloFormat
from walkcut.bulk.items import ItemPrediction
from walkcut.errors import SettingsError

Polygons = list[tuple[int, np.ndarray]]


def read(image: ItemPrediction, tolerance: float) -> Polygons:
    """Return class and corners in pixels of each line, checked by ultralytics' rules for labels."""
    (content,) = file_contents(YoloFormat(NUMBERS, tolerance).encode(image)).values()
    polygons = []
    for line in content.decode().splitlines():
        class_index, *coordinates = line.split(" ")
        assert class_index in {"0", "1", "2"}
        assert len(coordinates) >= 6
        assert len(coordinates) % 2 == 0
        points = np.array(coordinates, float).reshape(-1, 2)
        assert points.min() >= 0
        assert points.max() <= 1
        polygons.append((int(class_index), points * [image.size[1], image.size[0]]))
    rows = content.decode().splitlines()
    assert len(set(rows)) == len(rows)
    return polygons


def of_class(polygons: Polygons, class_index: int) -> list[np.ndarray]:
    return [points for index, points in polygons if index == class_index]


def expected_mask(image: ItemPrediction, class_index: int) -> np.ndarray:
    masks = [region.mask for region in image.predictions[-1].regions if region.label == CLASSES[class_index]]
    return np.any([np.zeros(image.size, bool), *masks], axis=0)


def by_pillow(rings: list[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """Draw eight times as large, and sample the centres of pixels."""
    image = Image.new("1", (size[1] * 8, size[0] * 8))
    for ring in rings:
        ImageDraw.Draw(image).polygon([tuple(point) for point in (ring * 8).tolist()], fill=1)
    return np.asarray(image)[4::8, 4::8]


@given(label_maps)
def test_without_tolerance_all_pixels_are_exact(labels: np.ndarray) -> None:
    image = make_prediction(labels)
    polygons = read(image, 0.0)
    for index in range(3):
        assert (fill_even_odd(of_class(polygons, index), image.size) == expected_mask(image, index)).all()


@given(label_maps)
def test_a_line_is_a_connected_part(labels: np.ndarray) -> None:
    """Lines do not overlap, so that none fills the hole of another."""
    image = make_prediction(labels)
    parts = [fill_even_odd([points], image.size) for _, points in read(image, 0.0)]
    assert np.sum(parts, axis=0).max(initial=0) <= 1
    assert all(part.any() for part in parts)


@pytest.mark.parametrize(("tolerance", "min_iou"), [(0.0, 0.999), (1.0, 0.97)])
def test_pillow_draws_the_sample(tolerance: float, min_iou: float) -> None:
    polygons = read(sample_prediction(), tolerance)
    for index in range(3):
        assert (
            iou(
                by_pillow(of_class(polygons, index), sample_prediction().size),
                expected_mask(sample_prediction(), index),
            )
            >= min_iou
        )


def test_a_slit_leads_to_a_hole() -> None:
    labels = np.ones((4, 4), np.int64)
    labels[1, 1] = 0
    ((class_index, ring),) = read(make_prediction(labels), 0.0)
    assert class_index == 1
    assert sorted(ring.round(3).tolist()) == [
        [0, 0], [0, 0.995], [0, 1.005], [0, 4], [1, 0.995], [1, 1.005], [1, 2], [1.005, 1], [2, 1], [2, 2], [4, 0],
        [4, 4],
    ]  # fmt: skip


def test_an_image_without_regions_has_an_empty_file() -> None:
    assert YoloFormat(NUMBERS).encode(make_prediction(np.zeros((2, 3), np.int64))).files == {"labels/one.txt": b""}


def record(key: str, *, linked: bool = True) -> dict[str, Any]:
    return {"key": key, "file": f"images/{key}.jpg", "labels": f"labels/{key}.txt", "linked": linked}


def test_data_yaml(tmp_path: Path) -> None:
    YoloFormat({"Region": 0, 'say "cat": #1': 1, "ciął": 2}).assemble([record("a")], tmp_path)
    assert (tmp_path / "data.yaml").read_text("utf-8") == (
        'train: images\nval: images\nnames:\n  0: "Region"\n  1: "say \\"cat\\": #1"\n  2: "ciął"\n'
    )
    assert [json.loads(line) for line in (tmp_path / "images.jsonl").read_text().splitlines()] == [record("a")]


def test_numbers_without_a_class_are_named_for_the_training_tool(tmp_path: Path) -> None:
    YoloFormat({"Car": 3, "Sky": 1}).assemble([], tmp_path)
    names = yaml.safe_load((tmp_path / "data.yaml").read_text())["names"]
    assert names == {0: "unused 0", 1: "Sky", 2: "unused 2", 3: "Car"}


def test_images_that_are_not_linked_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    YoloFormat(NUMBERS).assemble([record("a", linked=False), record("b"), record("c", linked=False)], tmp_path)
    expected = '2 images are not in images/: put each there under its "file" in images.jsonl'
    assert (tmp_path / "data.yaml").read_text().startswith(f"# {expected}\ntrain: images\n")
    assert caplog.messages == [expected]


def test_images_that_ultralytics_does_not_list_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    YoloFormat(NUMBERS).assemble([record("a.b"), record(".b"), record("c/.d/e")], tmp_path)
    (note,) = caplog.messages
    assert note == "2 images have a name or folder with a dot in front, which ultralytics leaves out: rename"
    assert yaml.safe_load((tmp_path / "data.yaml").read_text())["train"] == "images"


@pytest.mark.parametrize(
    ("name", "key", "place"),
    [
        ("a.PNG", "a", "a.PNG"),
        ("a.jfif", "a-1", "a-1.jpg"),
        ("x.png", ".x y", ".x y.png"),
        ("scan.1", "scan.1", "scan.1.jpg"),
    ],
)
def test_an_image_of_this_machine_is_linked_under_the_name_of_its_labels(
    tmp_path: Path, name: str, key: str, place: str
) -> None:
    (tmp_path / name).touch()
    image = make_prediction(np.zeros((2, 3), np.int64), key, reference=str(tmp_path / name), name=name)
    encoded = YoloFormat(NUMBERS).encode(image)
    assert encoded.files == {f"labels/{key}.txt": b"", f"images/{place}": tmp_path / name}
    assert (encoded.record["linked"], encoded.record["file"]) == (True, f"images/{place}")


@given(st.lists(st.sampled_from(["a", "images", "labels", ".b", "c.png"]), min_size=1, max_size=4))
def test_labels_lie_where_ultralytics_looks_for_them(parts: list[str]) -> None:
    image = make_prediction(np.zeros((2, 3), np.int64), "/".join(parts))
    if {"images", "labels"} <= set(parts[:-1]):
        with pytest.raises(
            SettingsError, match="is in folders named images and labels, which YOLO confuses: rename one"
        ):
            YoloFormat(NUMBERS).encode(image)
        return
    record = YoloFormat(NUMBERS).encode(image).record
    # img2label_paths of ultralytics/data/utils.py
    path = f"/images/set/{record['file']}"
    assert "/labels/".join(path.rsplit("/images/", 1)).rsplit(".", 1)[0] + ".txt" == f"/images/set/{record['labels']}"
