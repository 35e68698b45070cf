from typing import Any

import numpy as np
import pytest

from tests.builders.masks import drawing, mask_of
from walkcut.errors import BrushError, RequestError
from walkcut.labelstudio.shapes import brush, data_url, rle

SIZE = (4, 8)
LEFT, RIGHT = mask_of("##......", *["........"] * 3), mask_of("......##", *["........"] * 3)
# As a draft holds it, in a stage that is ten times as large as the image.
STROKE = {
    "id": "s", "type": "add", "points": [25, 35, 55, 35], "relativePoints": [31.25, 87.5, 68.75, 87.5],
    "strokeWidth": 10, "relativeStrokeWidth": 12.5, "eraserSize": 25,
}  # fmt: skip


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"rle": rle.encode(LEFT)}, ["##......", "........", "........", "........"]),
        ({"maskDataURL": data_url.encode(RIGHT)}, ["......##", "........", "........", "........"]),
        ({"touches": [STROKE]}, ["........", "........", "........", "..####.."]),
        ({"maskDataURL": data_url.encode(RIGHT), "touches": [STROKE]},
         ["......##", "........", "........", "..####.."]),
        ({"rle": rle.encode(LEFT), "maskDataURL": data_url.encode(RIGHT), "touches": []},
         ["##....##", "........", "........", "........"]),
        ({"maskDataURL": data_url.encode(LEFT), "touches": [STROKE | {"type": "eraser", "relativeStrokeWidth": 300}]},
         ["........", "........", "........", "........"]),
    ],
)  # fmt: skip
def test_code_image_and_strokes_are_drawn_on_each_other(value: dict[str, Any], expected: list[str]) -> None:
    assert drawing(brush.decode({"format": "rle", **value}, SIZE)) == expected


def test_a_value_is_a_run_length_code() -> None:
    assert brush.encode([LEFT], 1.0) == [{"format": "rle", "rle": rle.encode(LEFT)}]


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ({"format": "rle"}, BrushError, "neither a run-length code nor strokes nor an image of its mask"),
        ({"rle": "abc"}, BrushError, "needs a run-length code that is a list of bytes, and a list of strokes"),
        ({"rle": [0.5]}, BrushError, "list of bytes"),
        ({"touches": {}, "rle": [1]}, BrushError, "at least 7 bytes"),
        ({"touches": {"a": 1}}, BrushError, "a list of strokes"),
        ({"touches": [3]}, RequestError, "a brush stroke is an object, not int"),
        ({"touches": [{"type": "add"}]}, RequestError, "a brush stroke needs points, each an x and a y"),
        ({"touches": [STROKE | {"relativePoints": [1, 2, 3]}]}, RequestError, "each an x and a y"),
        ({"maskDataURL": "data:"}, BrushError, "needs to be a PNG in a data URL"),
        ({"maskDataURL": data_url.encode(np.ones((2, 2), bool))}, BrushError, "has 2×2 pixels, not 8×4"),
    ],
)
def test_malformed_values_are_refused(value: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        brush.decode(value, SIZE)
