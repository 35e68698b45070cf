from dataclasses import replace

import numpy as np

from walkcut.labelstudio import brush
from walkcut.labelstudio.config import BrushControl
from walkcut.labelstudio.predictions import (
    Region,
    brush_region,
    deletion_marker,
    make_prediction,
    region_id,
    status_item,
)
from walkcut.labelstudio.tasks import Task

CONTROL = BrushControl("brush", "image", "photo", ("Region",))
TASK = Task(7, {"photo": "https://example.org/a.jpg"})
MASK = np.eye(3, 4, dtype=bool)


def test_a_region_is_a_result_item_of_label_studio() -> None:
    region = brush_region(Region(MASK, "Region", 0.5), CONTROL, "abc")
    assert region == {
        "id": "abc",
        "from_name": "brush",
        "to_name": "image",
        "type": "brushlabels",
        "origin": "prediction",
        "original_width": 4,
        "original_height": 3,
        "image_rotation": 0,
        "score": 0.5,
        "value": {"format": "rle", "rle": brush.encode(MASK), "brushlabels": ["Region"]},
    }


def test_ids_depend_on_task_control_image_and_source_alone() -> None:
    others = [
        region_id(replace(TASK, id=8), CONTROL, "v 0"),
        region_id(TASK, replace(CONTROL, from_name="other"), "v 0"),
        region_id(TASK, CONTROL, "w 0"),
        region_id(TASK, CONTROL, "v 1"),
        region_id(Task(7, {"photo": "https://example.org/b.jpg"}), CONTROL, "v 0"),
    ]
    assert region_id(TASK, CONTROL, "v 0") == region_id(TASK, CONTROL, "v 0")
    assert len({region_id(TASK, CONTROL, "v 0"), *others}) == 6


def test_a_deletion_marker_keeps_one_pixel_of_its_region() -> None:
    marker = deletion_marker(Region(np.array([[False, True, True], [False, True, False]]), "A", 1.0, id="r"), CONTROL)
    assert (marker["id"], marker["dynamic"]) == ("r", True)
    assert brush.decode(marker["value"]["rle"], (2, 3)).tolist() == [[False, False, True], [False, False, False]]


def test_a_prediction_holds_the_regions_of_every_control() -> None:
    right = BrushControl("right", "r", "photo", ("A",))
    regions = [(CONTROL, [Region(MASK, "Region", 1.0)] * 2), (right, [Region(MASK, "A", 0.25)])]
    document = make_prediction(TASK, regions, "v").as_json()
    assert [region["from_name"] for region in document["result"]] == ["brush", "brush", "right"]
    assert len({region["id"] for region in document["result"]}) == 3
    assert (document["score"], document["model_version"]) == (0.75, "v")


def test_notes_are_shown_with_their_region() -> None:
    assert brush_region(Region(MASK, "Region", notes=("a", "b")), CONTROL, "r")["meta"] == {"text": ["a", "b"]}


def test_a_status_is_the_text_of_its_field() -> None:
    (item,) = status_item(["3 segments"], replace(CONTROL, status_field="note"))
    assert (item["from_name"], item["to_name"], item["value"]) == ("note", "image", {"text": ["3 segments"]})
    assert status_item(["3 segments"], CONTROL) == []
