from dataclasses import replace

import numpy as np
import pytest

from walkcut.errors import LabelConfigError, RequestError
from walkcut.labelstudio import (
    BrushTarget,
    Region,
    Task,
    brush,
    brush_region,
    brush_targets,
    prediction,
    read_extra_params,
    read_tasks,
    region_id,
    typed_lines,
    withdrawn_region,
)

TARGET = BrushTarget("brush", "image", "photo", ("Region",))
TASK = Task(7, {"photo": "https://example.org/a.jpg"})
MASK = np.eye(3, 4, dtype=bool)
BRUSH = '<BrushLabels name="brush" toName="image"><Label value="A"/></BrushLabels>'


def config(inside: str) -> str:
    return f'<View><Image name="image" value="$photo"/>{inside}</View>'


def test_names_and_attributes_come_from_the_label_config() -> None:
    labels = '<Label value="Car"/><Label value="Sky"/>'
    tag = f'<BrushLabels name="brush" toName="image" granularity="fine">{labels}</BrushLabels>'
    assert brush_targets(config(tag)) == (
        BrushTarget(
            "brush",
            "image",
            "photo",
            ("Car",),
            {"name": "brush", "toName": "image", "granularity": "fine"},
            ("Car", "Sky"),
        ),
    )


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ('<TextArea name="status" toName="image"/><TextArea name="granularity" toName="image"/>', "status"),
        ('<TextArea name="wish" toName="image"/><TextArea name="granularity" toName="image"/>', "granularity"),
        ('<TextArea name="wish" toName="image"/>', "wish"),
        ('<TextArea name="status" toName="other"/>', ""),
    ],
)
def test_annotators_are_answered_in_a_text_field(fields: str, status: str) -> None:
    (target,) = brush_targets(config(BRUSH + fields))
    assert target.status == status


def test_neutral_labels_are_those_that_say_so() -> None:
    labels = '<Label value="Car"/><Label value="A" neutral="true"/><Label value="B" neutral="true"/>'
    (target,) = brush_targets(config(f'<BrushLabels name="brush" toName="image">{labels}</BrushLabels>'))
    assert target.neutral == ("A", "B")


def test_each_picture_has_its_first_brush() -> None:
    two_pictures = """<View><View><Image name="left" value="$l"/><Image name="right" value="$r"/></View>
        <BrushLabels name="b1" toName="right"><Label value="A"/></BrushLabels>
        <BrushLabels name="b2" toName="right"><Label value="B"/></BrushLabels>
        <BrushLabels name="b3" toName="left"><Label value="C"/></BrushLabels></View>"""
    found = [(target.from_name, target.to_name, target.data_key) for target in brush_targets(two_pictures)]
    assert found == [("b1", "right", "r"), ("b3", "left", "l")]


@pytest.mark.parametrize(
    ("label_config", "message"),
    [
        ("", "no readable XML"),
        ("<View>", "no readable XML"),
        ('<!DOCTYPE x [<!ENTITY a "b">]><View>&a;</View>', "no readable XML"),
        ("<View/>", "needs BrushLabels on an Image"),
        (config('<RectangleLabels name="r" toName="image"><Label value="A"/></RectangleLabels>'), "needs BrushLabels"),
        (config('<BrushLabels name="b" toName="other"><Label value="A"/></BrushLabels>'), "needs BrushLabels"),
        (config('<BrushLabels name="b" toName="image"/>'), "needs a <Label"),
        (f'<View><Image name="image" valueList="$pages"/>{BRUSH}</View>', "valueList"),
    ],
)
def test_a_config_without_what_walkcut_needs_is_answered_with_the_remedy(label_config: str, message: str) -> None:
    with pytest.raises(LabelConfigError, match=message):
        brush_targets(label_config)


def test_tasks_keep_their_places_and_those_that_are_none_have_no_data() -> None:
    tasks = read_tasks({"tasks": [{"id": 3, "data": {"a": 1}, "extra": 0}, None, {"id": "x", "data": []}]})
    assert tasks == [Task(3, {"a": 1}), Task(0, {}), Task(0, {})]


@pytest.mark.parametrize("body", [{}, {"tasks": None}, {"tasks": {"id": 1}}])
def test_a_request_without_tasks_is_refused(body: dict[str, object]) -> None:
    with pytest.raises(RequestError, match='needs "tasks"'):
        read_tasks(body)


@pytest.mark.parametrize("value", [None, "", "  ", 3, ["a.jpg", "b.jpg"], {"a": 1}])
def test_a_task_without_one_picture_says_so(value: object) -> None:
    with pytest.raises(RequestError, match=r"task 7 has no picture: data\.photo is .*; write one picture's address"):
        Task(7, {"photo": value}).reference(TARGET)


def text_field(name: str, *lines: str, to_name: str = "image") -> dict[str, object]:
    return {"type": "textarea", "from_name": name, "to_name": to_name, "value": {"text": list(lines)}}


def test_the_granularity_field_counts_before_other_text_fields() -> None:
    note, wish = text_field("note", "hello"), text_field("granularity", "3", "5")
    elsewhere = text_field("granularity", "7", to_name="other")
    point = {"type": "keypointlabels", "from_name": "kp", "to_name": "image", "value": {"x": 1}}
    assert typed_lines({"result": [point, wish, note, elsewhere]}, TARGET) == ["3", "5"]
    assert typed_lines({"result": [note, elsewhere]}, TARGET) == ["hello"]


@pytest.mark.parametrize(
    "context", [None, "text", [], {}, {"result": None}, {"result": [None, {"type": "textarea", "value": "x"}]}]
)
def test_contexts_without_text_hold_no_line(context: object) -> None:
    assert typed_lines(context, TARGET) == []


@pytest.mark.parametrize(
    ("value", "params"),
    [('{"granularity": "fine"}', {"granularity": "fine"}), ({"a": 1}, {"a": 1}), (None, {}), ("", {}), ("[1]", {}),
     ("not json", {}), ([1], {}), (7, {})],
)  # fmt: skip
def test_extra_parameters_are_taken_in_every_form_and_garbage_is_nothing(value: object, params: object) -> None:
    assert read_extra_params(value) == params


def test_a_region_is_what_label_studio_shows() -> None:
    region = brush_region(Region(MASK, "Region", 0.5), TARGET, "abc")
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


def test_ids_are_the_same_for_the_same_answer_and_for_no_other() -> None:
    others = [
        region_id(replace(TASK, id=8), TARGET, "v 0"),
        region_id(TASK, replace(TARGET, from_name="other"), "v 0"),
        region_id(TASK, TARGET, "w 0"),
        region_id(TASK, TARGET, "v 1"),
        region_id(Task(7, {"photo": "https://example.org/b.jpg"}), TARGET, "v 0"),
    ]
    assert region_id(TASK, TARGET, "v 0") == region_id(TASK, TARGET, "v 0")
    assert len({region_id(TASK, TARGET, "v 0"), *others}) == 6


def test_a_withdrawn_region_shows_where_it_was_until_label_studio_deletes_it() -> None:
    gone = withdrawn_region(Region(np.array([[False, True, True], [False, True, False]]), "A", 1.0, id="r"), TARGET)
    assert (gone["id"], gone["dynamic"]) == ("r", True)
    assert brush.decode(gone["value"]["rle"], (2, 3)).tolist() == [[False, False, True], [False, False, False]]


def test_a_prediction_holds_the_regions_of_every_control() -> None:
    right = BrushTarget("right", "r", "photo", ("A",))
    regions = [(TARGET, [Region(MASK, "Region", 1.0)] * 2), (right, [Region(MASK, "A", 0.25)])]
    document = prediction(TASK, regions, "v").as_json()
    assert [region["from_name"] for region in document["result"]] == ["brush", "brush", "right"]
    assert len({region["id"] for region in document["result"]}) == 3
    assert (document["score"], document["model_version"]) == (0.75, "v")
