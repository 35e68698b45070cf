import numpy as np
import pytest
import shapely

from tests.builders.masks import as_shapely, blobs, drawing, mask_of
from walkcut.errors import BrushError, RequestError
from walkcut.labelstudio.shapes import polygon
from walkcut.masks.components import components


def test_points_are_percent() -> None:
    mask = mask_of("....", ".##.", "....", "....")
    assert polygon.encode([mask], 1.0) == [{"points": [[25, 25], [75, 25], [75, 50], [25, 50]], "closed": True}]
    assert drawing(polygon.decode({"points": [[0, 0], [100, 0], [0, 100]]}, (3, 3))) == ["##.", "#..", "..."]


def test_neighbours_share_their_points() -> None:
    left, right = polygon.encode([mask_of("#..", "##.", "#.."), mask_of(".##", "..#", ".##")], 1.0)
    shared = [point for point in left["points"] if point in right["points"]]
    assert len(shared) >= 2
    shapes = [shapely.Polygon(value["points"]) for value in (left, right)]
    assert shapely.coverage_is_valid(shapes)


def test_areas_are_within_a_percent() -> None:
    labels = blobs(1)
    parts = [part for region in range(4) for part in components(labels == region)]
    for part, value in zip(parts, polygon.encode(parts, 0.0), strict=True):
        points = np.array(value["points"]) * np.array(labels.shape[::-1]) / 100
        assert as_shapely([points]).area == pytest.approx(part.sum(), rel=0.01)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([[1, 1], [2, 2]], "a polygon needs three points, each an x and a y"),
        ([[1, 1], [2], [3, 3]], "a polygon needs three points"),
        ("points", "a polygon needs three points"),
        ([[1, 1], [2, "2"], [3, 3]], "a shape needs a number, not str"),
        ([[1, 1], [2, 1001], [3, 3]], "1001 is out of range for a shape on an image"),
    ],
)
def test_malformed_values_are_refused(points: object, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        polygon.decode({"points": points}, (4, 4))


def test_a_mask_of_two_parts_is_refused() -> None:
    with pytest.raises(BrushError, match="mask 0 has 2 connected parts: pass each part as a mask"):
        polygon.encode([mask_of("#.#")], 1.0)
