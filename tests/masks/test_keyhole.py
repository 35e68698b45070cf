import numpy as np
import pytest
import shapely
from hypothesis import given

from tests.builders.masks import any_labels, as_shapely, mask_of, tolerances
from walkcut.masks.keyhole import SLIT_WIDTH, keyhole
from walkcut.masks.polygons import polygons
from walkcut.masks.raster import fill_polygon


@given(any_labels, tolerances)
def test_the_ring_is_simple_and_holds_the_same_pixels(labels: np.ndarray, tolerance: float) -> None:
    for polygon in polygons(labels, tolerance):
        ring = keyhole(polygon.rings)
        shape = shapely.Polygon(ring)
        assert shape.is_valid
        assert (fill_polygon([ring], labels.shape) == fill_polygon(polygon.rings, labels.shape)).all()
        assert 0.99 <= shape.area / as_shapely(polygon.rings).area <= 1


def slow_slits(polygon: shapely.Polygon) -> shapely.Geometry:
    """Return the lines from the leftmost corner of each hole to the first border at its left."""
    tips = [min(hole.coords) for hole in polygon.interiors]
    rows = (shapely.LineString([(-1, y), (x, y)]).intersection(polygon) for x, y in tips)
    return shapely.union_all([shapely.get_parts(row)[-1] for row in rows])


@given(any_labels, tolerances)
def test_only_slits_and_corners_where_rings_touch_are_cut_out(labels: np.ndarray, tolerance: float) -> None:
    for polygon in polygons(labels, tolerance):
        expected, shape = as_shapely(polygon.rings), shapely.Polygon(keyhole(polygon.rings))
        points, counts = np.unique(np.concatenate(polygon.rings), axis=0, return_counts=True)
        cuts = shapely.union_all([slow_slits(expected), shapely.MultiPoint(points[counts > 1])])
        assert expected.difference(shape).difference(cuts.buffer(SLIT_WIDTH)).area < 1e-9
        assert shape.difference(expected).area < 1e-9


def test_very_many_holes() -> None:
    labels = np.ones((201, 201), np.uint16)
    labels[1::2, 1::2] = 0
    (polygon,) = polygons(labels, 0.0)
    assert len(polygon.rings) == 1 + 100 * 100
    ring = keyhole(polygon.rings)
    assert shapely.Polygon(ring).is_valid
    assert (fill_polygon([ring], labels.shape) == (labels > 0)).all()


def test_a_polygon_without_holes_is_its_ring() -> None:
    ring = np.array([[0, 0], [2, 0], [2, 1]])
    assert keyhole([ring]).tolist() == ring.tolist()


def test_a_slit_leads_to_the_border_at_the_left() -> None:
    (polygon,) = polygons(mask_of(".....", ".####", ".##.#", ".####").astype(np.uint16), 0.0)
    ring = keyhole(polygon.rings)
    assert len(ring) == 12
    half = SLIT_WIDTH / 2
    assert sorted(ring[(ring % 1 != 0).any(1)].round(6).tolist()) == [
        [1, 2 - half], [1, 2 + half], [3, 2 - half], [3, 2 + half], [3 + half, 2],
    ]  # fmt: skip


@pytest.mark.parametrize(
    "rows",
    [
        ("###", "#.#", "##."),  # the hole touches the outer ring
        ("####", "#.##", "##.#", "####"),  # holes touch
        ("#####", "#.#.#", "#####"),  # a slit to a slit's hole
        ("#####", "#.###", "##.##", "###.#", "####."),  # a chain from the inside to the outside
    ],
)
def test_touching_rings_are_joined_where_they_touch(rows: tuple[str, ...]) -> None:
    mask = mask_of(*rows)
    (polygon,) = polygons(mask.astype(np.uint16), 0.0)
    ring = keyhole(polygon.rings)
    assert len(polygon.rings) > 1
    assert shapely.Polygon(ring).is_valid
    assert (fill_polygon([ring], mask.shape) == mask).all()


def test_a_slit_is_thinner_than_a_narrow_gap() -> None:
    """A long line passes a corner at a thousandth of a pixel, and a slit to that corner leaves the gap open."""
    outer = np.array([[0, 0], [1001, 1], [1001, 40], [0, 40]])
    hole = np.array([[1000, 1], [990, 20], [1000, 20]])
    shape = shapely.Polygon(keyhole([outer, hole]))
    assert shape.is_valid
    assert shape.area > 0.9999 * as_shapely([outer, hole]).area
