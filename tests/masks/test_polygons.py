import numpy as np
import pytest
import shapely
from hypothesis import given

from tests.builders.masks import any_labels, as_shapely, blobs, mask_of, tolerances
from walkcut.errors import BrushError
from walkcut.masks.components import components
from walkcut.masks.polygons import Polygon, mask_polygons, polygons
from walkcut.masks.raster import fill_polygon


def of_mask(*rows: str, tolerance: float = 0.0) -> list[list[list[list[int]]]]:
    labels = mask_of(*rows).astype(np.uint16)
    return [[ring.tolist() for ring in polygon.rings] for polygon in polygons(labels, tolerance)]


def corners(polygon: Polygon) -> list[list[list[int]]]:
    """The corners of each ring in an order that does not depend on where it begins."""
    return [sorted(ring.tolist()) for ring in polygon.rings]


def test_a_ring_around_a_pixel() -> None:
    assert of_mask("###", "#.#", "###") == [[[[0, 0], [3, 0], [3, 3], [0, 3]], [[1, 1], [1, 2], [2, 2], [2, 1]]]]


def test_a_hole_that_touches_the_outer_ring_in_a_corner_is_a_hole() -> None:
    assert of_mask("###", "#.#", "##.") == [
        [[[2, 2], [2, 3], [0, 3], [0, 0], [3, 0], [3, 2]], [[2, 2], [2, 1], [1, 1], [1, 2]]]
    ]


def test_holes_that_touch_in_a_corner_are_two() -> None:
    ((outer, *holes),) = of_mask("####", "#.##", "##.#", "####")
    assert sorted(outer) == [[0, 0], [0, 4], [4, 0], [4, 4]]
    assert [sorted(hole) for hole in holes] == [
        [[1, 1], [1, 2], [2, 1], [2, 2]], [[2, 2], [2, 3], [3, 2], [3, 3]],
    ]  # fmt: skip


def test_pixels_that_touch_in_a_corner_are_two_polygons() -> None:
    assert [len(rings) for rings in of_mask("#.", ".#")] == [1, 1]


def test_a_full_frame_and_nothing() -> None:
    assert of_mask("##", "##") == [[[[0, 0], [2, 0], [2, 2], [0, 2]]]]
    assert of_mask("..", "..") == []


def test_an_island_near_a_border_stays_on_its_side() -> None:
    """The bay's line would run on the other side of the island in it."""
    labels = np.zeros((12, 40), np.uint16)
    labels[6:] = 1
    labels[6:10, 10:30] = 0
    labels[8, 20] = 2
    bay, island = (as_shapely(polygon.rings) for polygon in polygons(labels, 8.0))
    assert not bay.intersects(island)


def test_lines_that_would_cross_are_split() -> None:
    """The bay's line would cut through the spike that reaches into it."""
    labels = np.ones((30, 40), np.uint16)
    labels[:10, :] = labels[10:14, 5:35] = 2
    labels[11:14, 19:21] = 3
    labels[5:11, 19:21] = 3
    shapes = [as_shapely(polygon.rings) for polygon in polygons(labels, 6.0)]
    assert shapely.coverage_is_valid(shapes)
    assert sum(shape.area for shape in shapes) == labels.size


@given(any_labels, tolerances)
def test_polygons_are_a_valid_coverage(labels: np.ndarray, tolerance: float) -> None:
    found = polygons(labels, tolerance)
    shapes = [as_shapely(polygon.rings) for polygon in found]
    assert [shapely.is_valid_reason(shape) for shape in shapes if not shape.is_valid] == []
    assert shapely.coverage_is_valid(shapes)
    exact = polygons(labels, 0.0)
    assert [(polygon.region, len(polygon.rings)) for polygon in found] == [
        (polygon.region, len(polygon.rings)) for polygon in exact
    ]


@given(any_labels, tolerances)
def test_no_removed_corner_is_farther_than_the_tolerance(labels: np.ndarray, tolerance: float) -> None:
    for exact, simple in zip(polygons(labels, 0.0), polygons(labels, tolerance), strict=True):
        border = as_shapely(simple.rings).boundary
        removed = shapely.points(np.concatenate(exact.rings))
        assert shapely.distance(border, removed).max() <= tolerance + 1e-9


def test_small_and_thin_regions_keep_their_shape() -> None:
    y, x = np.mgrid[:64, :64]
    masks = [np.hypot(y - 31.7, x - 30.2) <= radius for radius in (1, 2, 4, 8, 16, 28)]
    masks += [abs(y - 0.37 * x - 9) < thickness for thickness in (1, 2, 4)]
    for part in (part for mask in masks for part in components(mask)):
        (polygon,) = mask_polygons([part], 3.0)
        filled = fill_polygon(polygon.rings, part.shape)
        assert np.count_nonzero(filled & part) >= 0.97 * np.count_nonzero(filled | part)


@given(any_labels)
def test_without_tolerance_pixels_are_exact(labels: np.ndarray) -> None:
    restored = np.zeros_like(labels)
    for polygon in polygons(labels, 0.0):
        restored[fill_polygon(polygon.rings, labels.shape)] += np.uint16(polygon.region)
    assert (restored == labels).all()


@given(any_labels, tolerances)
def test_a_border_is_the_same_from_both_sides(labels: np.ndarray, tolerance: float) -> None:
    """Other numbers of the regions change which side of a border is traced first, and no corner."""
    renumbered = np.where(labels, 7 - labels, 0).astype(np.uint16)
    one, two = (
        sorted(corners(polygon) for polygon in polygons(numbers, tolerance)) for numbers in (labels, renumbered)
    )
    assert one == two


def test_polygons_are_the_same_each_time() -> None:
    one, two = (polygons(blobs(3), 1.0) for _ in range(2))
    assert [[ring.tolist() for ring in polygon.rings] for polygon in one] == [
        [ring.tolist() for ring in polygon.rings] for polygon in two
    ]


def test_masks_of_a_partition_share_their_borders() -> None:
    parts = [part for region in range(4) for part in components(blobs(5) == region)]
    found = mask_polygons(parts, 1.0)
    assert [polygon.region for polygon in found] == list(range(len(parts)))
    assert shapely.coverage_is_valid([as_shapely(polygon.rings) for polygon in found])


def test_each_of_overlapping_masks_has_its_own_polygon() -> None:
    masks = [mask_of("####", "####"), mask_of(".##.", "...."), mask_of("....", "..##"), mask_of("#...", "#...")]
    found = mask_polygons(masks, 0.0)
    assert [polygon.region for polygon in found] == [0, 1, 2, 3]
    assert all((fill_polygon(polygon.rings, (2, 4)) == mask).all() for polygon, mask in zip(found, masks, strict=True))


@pytest.mark.parametrize(("rows", "parts"), [(("#.", ".#"), 2), (("..", ".."), 0)])
def test_a_mask_of_several_parts_or_none_is_refused(rows: tuple[str, ...], parts: int) -> None:
    with pytest.raises(BrushError, match=f"mask 1 has {parts} connected parts: pass each part as a mask"):
        mask_polygons([mask_of("##", ".."), mask_of(*rows)], 1.0)


def test_no_masks_have_no_polygons() -> None:
    assert mask_polygons([], 1.0) == []
