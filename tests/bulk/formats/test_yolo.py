from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from PIL import Image, ImageDraw

from tests.builders.labelled import NAMES, even_odd, iou, label_maps, labelled, sample
from walkcut.bulk.formats import YoloFormat
from walkcut.bulk.items import ItemPrediction

Polygons = list[tuple[int, np.ndarray]]


def read(image: ItemPrediction, tolerance: float) -> Polygons:
    """Class and corners in pixels of each line, by the rules that ultralytics checks labels with."""
    (content,) = YoloFormat(NAMES, tolerance).encode(image).files.values()
    found = []
    for line in content.decode().splitlines():
        number, *coordinates = line.split(" ")
        assert number in {"0", "1", "2"}
        assert len(coordinates) >= 6
        assert len(coordinates) % 2 == 0
        points = np.array(coordinates, float).reshape(-1, 2)
        assert points.min() >= 0
        assert points.max() <= 1
        found.append((int(number), points * [image.size[1], image.size[0]]))
    rows = content.decode().splitlines()
    assert len(set(rows)) == len(rows)
    return found


def of_class(polygons: Polygons, number: int) -> list[np.ndarray]:
    return [points for each, points in polygons if each == number]


def truth(image: ItemPrediction, number: int) -> np.ndarray:
    masks = [each.mask for each in image.predictions[-1].regions if each.label == NAMES[number]]
    return np.any([np.zeros(image.size, bool), *masks], axis=0)


def by_pillow(rings: list[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """Drawn eight times as large, and looked at where pixels have their centres."""
    image = Image.new("1", (size[1] * 8, size[0] * 8))
    for ring in rings:
        ImageDraw.Draw(image).polygon([tuple(point) for point in (ring * 8).tolist()], fill=1)
    return np.asarray(image)[4::8, 4::8]


@given(label_maps)
def test_without_tolerance_every_pixel_comes_back(labels: np.ndarray) -> None:
    image = labelled(labels)
    polygons = read(image, 0.0)
    for number in range(3):
        assert (even_odd(of_class(polygons, number), image.size) == truth(image, number)).all()


@given(label_maps)
def test_a_line_is_a_connected_part(labels: np.ndarray) -> None:
    """Each alone is true to its part, holes and all: none has pixels of another's."""
    image = labelled(labels)
    parts = [even_odd([points], image.size) for _, points in read(image, 0.0)]
    assert np.sum(parts, axis=0).max(initial=0) <= 1
    assert all(part.any() for part in parts)


@pytest.mark.parametrize(("tolerance", "at_least"), [(0.0, 0.999), (1.0, 0.97)])
def test_pillow_draws_the_sample(tolerance: float, at_least: float) -> None:
    polygons = read(sample(), tolerance)
    for number in range(3):
        assert iou(by_pillow(of_class(polygons, number), sample().size), truth(sample(), number)) >= at_least


def test_a_hole_is_cut_in_by_hand() -> None:
    labels = np.ones((4, 4), np.int64)
    labels[1, 1] = 0
    (content,) = YoloFormat(NAMES, 0.0).encode(labelled(labels)).files.values()
    outer, hole = "1 0 1 1 0 1", "0.25 0.25 0.25 0.5 0.5 0.5 0.5 0.25 0.25 0.25"
    assert [float(value) for value in content.split()] == [1, *map(float, f"0 0 {hole} 0 0 {outer}".split())]


def test_a_image_without_regions_has_an_empty_file() -> None:
    assert YoloFormat(NAMES).encode(labelled(np.zeros((2, 3), np.int64))).files == {"labels/one.txt": b""}


def test_data_yaml(tmp_path: Path) -> None:
    YoloFormat(("Region", 'say "cat": #1', "ciął")).assemble([], tmp_path)
    assert (tmp_path / "data.yaml").read_text("utf-8") == (
        'train: images\nval: images\nnames:\n  0: "Region"\n  1: "say \\"cat\\": #1"\n  2: "ciął"\n'
    )
