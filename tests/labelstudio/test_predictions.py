from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.builders.label_config import make_image_tag, make_task_image
from walkcut.labelstudio.config import ControlTag
from walkcut.labelstudio.predictions import (
    Region,
    deletion_markers,
    is_modified,
    make_prediction,
    region_id,
    region_id_prefix,
    region_items,
    status_item,
    without_duplicates,
)
from walkcut.labelstudio.results import shape_items
from walkcut.labelstudio.shapes import polygon, rle

DATA = {"photo": "https://example.org/a.jpg"}
IMAGE = make_task_image(make_image_tag("$photo"), DATA, 7)
MASK = np.eye(3, 4, dtype=bool)


def test_a_region_is_a_result_item_of_label_studio() -> None:
    (item,) = region_items([Region(MASK, "Region", 0.5, id="abc")], IMAGE)
    assert item == {
        "id": "abc",
        "from_name": "brush",
        "to_name": "image",
        "type": "brushlabels",
        "origin": "prediction",
        "original_width": 4,
        "original_height": 3,
        "image_rotation": 0,
        "score": 0.5,
        "meta": {"walkcut": {"label": "Region"}},
        "value": {"format": "rle", "rle": rle.encode(MASK), "brushlabels": ["Region"]},
    }


def test_a_region_without_a_label_has_an_empty_list_of_them() -> None:
    (item,) = region_items([Region(MASK, "")], IMAGE)
    assert item["value"]["brushlabels"] == []


def test_ids_depend_on_task_image_and_source_alone() -> None:
    others = [
        region_id(make_task_image(IMAGE.tag, DATA, 8), "v 0"),
        region_id(make_task_image(make_image_tag("$photo", name="other"), DATA, 7), "v 0"),
        region_id(IMAGE, "w 0"),
        region_id(IMAGE, "v 1"),
        region_id(make_task_image(IMAGE.tag, {"photo": "https://example.org/b.jpg"}, 7), "v 0"),
    ]
    assert region_id(IMAGE, "v 0") == region_id(IMAGE, "v 0")
    assert len({region_id(IMAGE, "v 0"), *others}) == 6


def test_all_ids_on_an_image_begin_alike() -> None:
    prefix = region_id_prefix(IMAGE)
    assert region_id(IMAGE, "a").startswith(prefix)
    assert not region_id(make_task_image(IMAGE.tag, DATA, 8), "a").startswith(prefix)
    assert not region_id(make_task_image(make_image_tag("$photo", name="other"), DATA, 7), "a").startswith(prefix)


def test_deletion_markers_are_dynamic_regions_of_one_pixel() -> None:
    markers = deletion_markers(["r", "s"], (2, 3), IMAGE)
    assert [(marker["id"], marker["dynamic"]) for marker in markers] == [("r", True), ("s", True)]
    assert [rle.decode(marker["value"]["rle"], (2, 3)).sum() for marker in markers] == [1, 1]


def test_predictions_of_a_task_share_their_ids() -> None:
    long, short = (
        [item["id"] for item in make_prediction([(IMAGE, [Region(MASK, "Region")] * count)], f"v{count}").result]
        for count in (3, 2)
    )
    assert (long[:2], len({*long})) == (short, 3)


@pytest.mark.parametrize(
    ("changes", "modified"),
    [
        ({}, False),
        ({"origin": "prediction-changed"}, True),
        ({"origin": "manual"}, True),
        ({"value": {"brushlabels": ["Car"]}}, True),
        ({"value": {}}, True),
        ({"value": {"brushlabels": ["Car"]}, "meta": {"walkcut": {"label": "Car"}}}, False),
        ({"value": {}, "meta": {"walkcut": {"label": ""}}}, False),
        ({"value": {"brushlabels": ["Car"]}, "meta": {"text": ["of another model"]}}, False),
        ({"meta": "odd"}, False),
    ],
)
def test_a_region_is_modified_if_a_person_drew_or_named_it(changes: dict[str, Any], modified: bool) -> None:
    (item,) = region_items([Region(MASK, "Region", id="r")], IMAGE)
    (shape,) = shape_items([{**item, **changes}])
    assert is_modified(shape.item, shape.label) is modified


def test_a_modified_region_is_still_modified_when_it_is_suggested_and_accepted() -> None:
    (item,) = region_items([Region(MASK, "Region", modified=True)], IMAGE)
    assert is_modified(item, "Region")


def test_of_predictions_with_the_same_masks_the_last_stays() -> None:
    whole, part = Region(np.ones((3, 4), bool), "A"), Region(MASK, "A")
    levels = {"coarse": [whole], "medium": [whole], "fine": [whole, part], "auto": [replace(whole, label="B")], "x": []}
    predictions = [make_prediction([(IMAGE, regions)], name) for name, regions in levels.items()]
    assert [prediction.model_version for prediction in without_duplicates(predictions)] == ["fine", "auto", "x"]


def test_a_prediction_holds_the_regions_of_every_control() -> None:
    right = make_task_image(make_image_tag("$photo", ("A",), name="r", control="right"))
    regions = [(IMAGE, [Region(MASK, "Region", 1.0)] * 2), (right, [Region(MASK, "A", 0.25)])]
    document = make_prediction(regions, "v").as_json()
    assert [region["from_name"] for region in document["result"]] == ["brush", "brush", "right"]
    assert len({region["id"] for region in document["result"]}) == 3
    assert (document["score"], document["model_version"]) == (0.75, "v")


def test_polygons_share_their_borders_across_controls_and_with_regions_that_are_not_written() -> None:
    controls = tuple(ControlTag(name, "polygon", (name,), name) for name in ("Car", "Sky"))
    image = make_task_image(replace(make_image_tag("$photo"), controls=controls), DATA)
    y, x = np.mgrid[:40, :60]
    left = x < 30 + 6 * np.sin(y / 4)
    car, sky = Region(left, "Car", id="c"), Region(~left, "Sky", id="s")
    items = region_items([car, sky], image)
    first, second = (polygon.decode(item["value"], left.shape) for item in items)
    assert np.array_equal(first, ~second)
    assert [*region_items([car], image, [sky]), *region_items([sky], image, [car])] == items


def test_notes_are_shown_with_their_region() -> None:
    (item,) = region_items([Region(MASK, "Region", notes=("a", "b"))], IMAGE)
    assert item["meta"]["text"] == ["a", "b"]


def test_a_status_is_the_text_of_its_field() -> None:
    (item,) = status_item(["3 segments"], make_task_image(make_image_tag(status_field="note")))
    assert (item["from_name"], item["to_name"], item["value"]) == ("note", "image", {"text": ["3 segments"]})
    assert status_item(["3 segments"], IMAGE) == []
