import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_masks
from scipy.ndimage import distance_transform_edt

from tests.builders.predictions import (
    fill_even_odd,
    iou,
    label_maps,
    make_prediction,
    nearest_seed_map,
    sample_prediction,
    smooth_maps,
)
from walkcut.bulk.formats import PolygonFormat
from walkcut.bulk.items import ItemPrediction

# pycocotools' decoder is written for numpy 1.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def regions(image: ItemPrediction, tolerance: float) -> list[dict[str, Any]]:
    encoded: list[dict[str, Any]] = PolygonFormat(tolerance).encode(image).record["regions"]
    return encoded


def rings(region: dict[str, Any]) -> list[np.ndarray]:
    return [np.array(ring) for polygon in region["polygons"] for ring in polygon]


def masks(image: ItemPrediction, tolerance: float) -> list[np.ndarray]:
    return [fill_even_odd(rings(region), image.size) for region in regions(image, tolerance)]


def by_pycocotools(region: dict[str, Any], size: tuple[int, int]) -> np.ndarray:
    """Return the outer rings' pixels without the holes', as COCO's tools fill polygons."""
    inside = np.zeros(size, bool)
    for outer, *holes in region["polygons"]:
        filled = [
            coco_masks.decode(coco_masks.frPyObjects([np.ravel(ring).tolist()], *size))[..., 0] > 0
            for ring in (outer, *holes)
        ]
        inside |= filled[0] & ~np.any([np.zeros(size, bool), *filled[1:]], axis=0)
    return inside


def distances_to_border(mask: np.ndarray) -> np.ndarray:
    """Return the distance of each pixel's centre to the mask's border: slow, but simple."""
    padded = np.pad(mask, 1)
    across = np.argwhere(padded[1:-1, 1:] != padded[1:-1, :-1])  # an edge from (y, x) to (y + 1, x)
    down = np.argwhere(padded[1:, 1:-1] != padded[:-1, 1:-1])  # an edge from (y, x) to (y, x + 1)
    y, x = np.mgrid[: mask.shape[0], : mask.shape[1]][..., None] + 0.5
    beside = np.hypot(x - across[:, 1], np.maximum(np.abs(y - across[:, 0] - 0.5) - 0.5, 0))
    above = np.hypot(np.maximum(np.abs(x - down[:, 1] - 0.5) - 0.5, 0), y - down[:, 0])
    return np.concatenate([beside, above], -1).min(-1)


@given(label_maps)
def test_without_tolerance_all_pixels_are_exact(labels: np.ndarray) -> None:
    image = make_prediction(labels)
    for region, expected_region in zip(regions(image, 0.0), image.predictions[-1].regions, strict=True):
        assert (fill_even_odd(rings(region), image.size) == expected_region.mask).all()
        assert (by_pycocotools(region, image.size) == expected_region.mask).all()


@given(label_maps, st.sampled_from([0.5, 0.8, 1.0, 1.5, 2.5, 4.0]))
def test_wrong_pixels_are_no_farther_from_the_border_than_the_tolerance(labels: np.ndarray, tolerance: float) -> None:
    image = make_prediction(labels)
    for mask, expected_region in zip(masks(image, tolerance), image.predictions[-1].regions, strict=True):
        wrong = mask != expected_region.mask
        assert distances_to_border(expected_region.mask)[wrong].max(initial=0) <= tolerance + 1e-9


@given(smooth_maps)
def test_all_regions_and_holes_are_kept(labels: np.ndarray) -> None:
    exact, simple = (regions(make_prediction(labels), tolerance) for tolerance in (0.0, 50.0))
    for exact_region, region in zip(exact, simple, strict=True):
        assert [len(polygon) for polygon in exact_region["polygons"]] == [
            len(polygon) for polygon in region["polygons"]
        ]
        assert all(len(ring) >= 3 for ring in rings(region))


def test_the_sample_is_within_the_tolerance() -> None:
    expected = sample_prediction().predictions[-1].regions
    count = 0
    for region, expected_region in zip(regions(sample_prediction(), 1.0), expected, strict=True):
        mask = by_pycocotools(region, sample_prediction().size)
        wrong = mask != expected_region.mask
        to_border = np.where(
            expected_region.mask,
            distance_transform_edt(expected_region.mask),
            distance_transform_edt(~expected_region.mask),
        )
        assert to_border[wrong].max(initial=0) <= 1 + 1  # measured between centres of pixels, the border is nearer
        assert iou(mask, expected_region.mask) > 0.97
        count += sum(map(len, rings(region)))
    exact = sum(len(ring) for region in regions(sample_prediction(), 0.0) for ring in rings(region))
    assert count < exact / 3


def test_the_sample_is_exact_without_tolerance() -> None:
    for region, expected_region in zip(
        regions(sample_prediction(), 0.0), sample_prediction().predictions[-1].regions, strict=True
    ):
        assert (by_pycocotools(region, sample_prediction().size) == expected_region.mask).all()


@given(smooth_maps, st.sampled_from([1.0, 2.0]))
def test_neighbours_share_a_border(labels: np.ndarray, tolerance: float) -> None:
    """Within a frame, each pixel is in exactly one region."""
    framed = np.pad(np.kron(labels + 1, np.ones((3, 3), int)), 30)
    covered = np.sum(masks(make_prediction(framed), tolerance), axis=0)
    assert covered.max() == 1
    assert (covered[40:-40, 40:-40] == 1).all()


@pytest.mark.parametrize("tolerance", [0.0, 1.0, 4.0])
def test_an_island_and_the_hole_around_it_are_the_same_ring(tolerance: float) -> None:
    y, x = np.mgrid[:60, :60]
    labels = 1 + ((y - 30) ** 2 + (x - 28) ** 2 < 400)
    around, island = regions(make_prediction(labels), tolerance)
    ((_, hole),), ((outer,),) = around["polygons"], island["polygons"]
    assert hole[0] == outer[0]
    assert hole[1:] == outer[:0:-1]


@pytest.mark.parametrize("tolerance", [0.0, 0.4])
def test_a_square_with_a_hole(tolerance: float) -> None:
    labels = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]])
    (region,) = regions(make_prediction(labels), tolerance)
    assert region["polygons"] == [[[[0, 0], [3, 0], [3, 3], [0, 3]], [[1, 1], [1, 2], [2, 2], [2, 1]]]]


def test_pixels_that_touch_in_a_corner_are_two_polygons() -> None:
    (region,) = regions(make_prediction(np.array([[1, 0], [0, 1]])), 0.0)
    assert region["polygons"] == [[[[1, 1], [0, 1], [0, 0], [1, 0]]], [[[1, 1], [2, 1], [2, 2], [1, 2]]]]


def test_three_regions_share_the_point_where_they_meet() -> None:
    three = regions(make_prediction(np.array([[1, 1], [2, 3]])), 0.0)
    assert all([1, 1] in region["polygons"][0][0] for region in three)


def test_a_staircase_becomes_a_line_at_half_its_height() -> None:
    stairs = np.tri(100, 100, dtype=np.int64)
    (exact,), (simple,) = (regions(make_prediction(stairs), tolerance)[0]["polygons"] for tolerance in (0.0, 0.71))
    assert len(exact[0]) == 202
    assert len(simple[0]) <= 6


def test_a_region_thinner_than_the_tolerance_keeps_its_shape() -> None:
    labels = np.ones((9, 9), np.int64)
    labels[4] = 2
    assert masks(make_prediction(labels), 3.0)[1].tolist() == (labels == 2).tolist()


def test_lines_of_the_file(tmp_path: Path) -> None:
    records = [
        PolygonFormat().encode(make_prediction(nearest_seed_map([(5, 5), (20, 30)]), key)).record
        for key in ("a/b", "c")
    ]
    PolygonFormat().assemble(iter(records), tmp_path)
    first, second = (json.loads(line) for line in (tmp_path / "polygons.jsonl").read_text().splitlines())
    regions = first.pop("regions")
    assert first == {
        "key": "a/b", "image": "a/b.jpg", "reference": "/in/a/b.jpg", "width": 40, "height": 30,
        "model_version": "v1", "tolerance": 1.0,
    }  # fmt: skip
    assert [(region["label"], region["score"]) for region in regions] == [("Background", 1 / 64)]
    assert second["key"] == "c"
