from typing import Any

import numpy as np
import pytest

from tests.builders.masks import drawing, mask_of
from walkcut.errors import RequestError
from walkcut.labelstudio.shapes import vector

SQUARE = [(20, 20), (80, 20), (80, 80), (20, 80)]
SIZE = (10, 10)


def path(*points: tuple[float, float], closed: bool = True) -> dict[str, Any]:
    """A path as the editor writes it: if it is closed, the first vertex follows the last."""
    names = [str(index) for index in range(len(points))]
    before = [names[-1] if closed else None, *names[:-1]]
    return {
        "vertices": [
            {"id": name, "x": x, "y": y, "prevPointId": previous, "isBezier": False}
            for name, previous, (x, y) in zip(names, before, points, strict=True)
        ],
        "closed": closed,
    }


def test_the_vertices_of_a_mask() -> None:
    (value,) = vector.encode([mask_of("....", ".##.", "....", "....")], 1.0)
    assert value == {
        "vertices": [
            {"id": "v0", "x": 25, "y": 25, "prevPointId": "v3", "isBezier": False},
            {"id": "v1", "x": 75, "y": 25, "prevPointId": "v0", "isBezier": False},
            {"id": "v2", "x": 75, "y": 50, "prevPointId": "v1", "isBezier": False},
            {"id": "v3", "x": 25, "y": 50, "prevPointId": "v2", "isBezier": False},
        ],
        "closed": True,
    }


def test_straight_paths_are_filled() -> None:
    assert vector.decode(path(*SQUARE), SIZE).sum() == 36


def test_a_path_whose_first_vertex_follows_the_last_is_closed() -> None:
    assert vector.decode(path(*SQUARE) | {"closed": False}, SIZE).sum() == 36


@pytest.mark.parametrize("change", ["in another order", "without a closing reference", "without references"])
def test_vertices_follow_each_other_by_their_references(change: str) -> None:
    value = path(*SQUARE)
    vertices = value["vertices"]
    if change == "in another order":
        value["vertices"] = [vertices[index] for index in (2, 0, 3, 1)]
    elif change == "without a closing reference":
        vertices[0]["prevPointId"] = None
    else:
        value["vertices"] = [{"x": vertex["x"], "y": vertex["y"]} for vertex in vertices]
    assert vector.decode(value, SIZE).sum() == 36


def bezier(x: float, y: float, arriving: tuple[float, float] | None, leaving: tuple[float, float] | None) -> dict:
    points = {"controlPoint1": arriving, "controlPoint2": leaving}
    handles = {name: {"x": point[0], "y": point[1]} for name, point in points.items() if point}
    return {"x": x, "y": y, "isBezier": True, **handles}


def test_curves_are_those_of_the_handles() -> None:
    """A circle of four arcs, see Riškus, "Approximation of a cubic Bézier curve by circular arcs", 2006."""
    k = 40 * 0.5523
    vertices = [
        bezier(50, 10, (50 - k, 10), (50 + k, 10)), bezier(90, 50, (90, 50 - k), (90, 50 + k)),
        bezier(50, 90, (50 + k, 90), (50 - k, 90)), bezier(10, 50, (10, 50 + k), (10, 50 - k)),
    ]  # fmt: skip
    y, x = np.mgrid[:200, :200] + 0.5
    mask = vector.decode({"vertices": vertices, "closed": True}, (200, 200))
    assert (mask != (np.hypot(x - 100, y - 100) < 80)).sum() < 40


def test_a_straight_end_has_the_editors_handle() -> None:
    """Three tenths of the way: the curve is not the straight line that it would be without the other handle."""
    vertices = [bezier(0, 0, None, (0, 100)), {"x": 100, "y": 0, "isBezier": False}]
    mask = vector.decode({"vertices": vertices, "closed": True}, (100, 100))
    t = np.linspace(0, 1, 1001)
    x, y = 3 * (1 - t) * t**2 * 70 + t**3 * 100, 3 * (1 - t) ** 2 * t * 100
    assert mask.sum() == pytest.approx(np.trapezoid(y, x), rel=0.02)
    mirrored = [{"x": 0, "y": 0, "isBezier": False}, bezier(100, 0, (100, 100), None)]
    assert (vector.decode({"vertices": mirrored, "closed": True}, (100, 100)) == mask[:, ::-1]).mean() > 0.99


def test_handles_of_straight_vertices_do_not_count() -> None:
    value = path(*SQUARE)
    value["vertices"][0]["controlPoint2"] = {"x": 0, "y": 0}
    assert vector.decode(value, SIZE).sum() == 36


def test_a_branch_is_refused() -> None:
    value = path(*SQUARE)
    value["vertices"][3]["prevPointId"] = "1"
    with pytest.raises(RequestError, match="a vector path that branches or has gaps covers no area: draw one closed"):
        vector.decode(value, SIZE)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (path(*SQUARE, closed=False), "an open vector path covers no area: close it on the image"),
        ({"vertices": path(*SQUARE, closed=False)["vertices"]}, "an open vector path"),
        ({"vertices": [{"x": 1, "y": 1}], "closed": True}, "a vector path needs vertices, each an x and a y"),
        ({"vertices": [[1, 1], [2, 2]], "closed": True}, "a vector path needs vertices"),
        ({"vertices": [{"x": 1, "y": 1}, {"x": 1}], "closed": True}, "a shape needs a number, not NoneType"),
        ({"vertices": [{"x": 1, "y": 1}, {"x": 1, "y": -2e3}], "closed": True}, "-2000.0 is out of range"),
    ],
)
def test_malformed_values_are_refused(value: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        vector.decode(value, SIZE)


def test_drawing_of_a_hole_by_a_slit() -> None:
    mask = mask_of("###", "#.#", "###")
    assert drawing(vector.decode(vector.encode([mask], 0.0)[0], (3, 3))) == ["###", "#.#", "###"]
