from dataclasses import replace

import numpy as np
import pytest

from walkcut.errors import LabelConfigError, RequestError
from walkcut.labelstudio import (
    BrushControl,
    Region,
    Task,
    brush,
    brush_region,
    deletion_marker,
    parse_brush_controls,
    prediction,
    read_extra_params,
    read_tasks,
    region_id,
    text_commands,
)

CONTROL = BrushControl("brush", "image", "photo", ("Region",))
TASK = Task(7, {"photo": "https://example.org/a.jpg"})
MASK = np.eye(3, 4, dtype=bool)
BRUSH = '<BrushLabels name="brush" toName="image"><Label value="A"/></BrushLabels>'


def config(inside: str) -> str:
    return f'<View><Image name="image" value="$photo"/>{inside}</View>'


def test_names_and_attributes_come_from_the_label_config() -> None:
    labels = '<Label value="Car"/><Label value="Sky"/>'
    tag = f'<BrushLabels name="brush" toName="image" granularity="fine">{labels}</BrushLabels>'
    assert parse_brush_controls(config(tag)) == (
        BrushControl(
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
    (control,) = parse_brush_controls(config(BRUSH + fields))
    assert control.status == status


def test_neutral_labels_are_those_that_say_so() -> None:
    labels = '<Label value="Car"/><Label value="A" neutral="true"/><Label value="B" neutral="true"/>'
    (control,) = parse_brush_controls(config(f'<BrushLabels name="brush" toName="image">{labels}</BrushLabels>'))
    assert control.generic_labels == ("A", "B")


def test_each_image_has_its_first_brush() -> None:
    two_images = """<View><View><Image name="left" value="$l"/><Image name="right" value="$r"/></View>
        <BrushLabels name="b1" toName="right"><Label value="A"/></BrushLabels>
        <BrushLabels name="b2" toName="right"><Label value="B"/></BrushLabels>
        <BrushLabels name="b3" toName="left"><Label value="C"/></BrushLabels></View>"""
    found = [(control.from_name, control.to_name, control.data_key) for control in parse_brush_controls(two_images)]
    assert found == [("b1", "right", "r"), ("b3", "left", "l")]


@pytest.mark.parametrize(
    ("label_config", "message"),
    [
        ("", "is not readable XML"),
        ("<View>", "is not readable XML"),
        ('<!DOCTYPE x [<!ENTITY a "b">]><View>&a;</View>', "is not readable XML"),
        ("<View/>", "needs BrushLabels on an Image"),
        (config('<RectangleLabels name="r" toName="image"><Label value="A"/></RectangleLabels>'), "needs BrushLabels"),
        (config('<BrushLabels name="b" toName="other"><Label value="A"/></BrushLabels>'), "needs BrushLabels"),
        (config('<BrushLabels name="b" toName="image"/>'), "needs a <Label"),
        (f'<View><Image name="image" valueList="$pages"/>{BRUSH}</View>', "valueList"),
    ],
)
def test_a_config_without_what_walkcut_needs_is_answered_with_the_remedy(label_config: str, message: str) -> None:
    with pytest.raises(LabelConfigError, match=message):
        parse_brush_controls(label_config)


def test_tasks_keep_their_places_and_those_that_are_none_have_no_data() -> None:
    tasks = read_tasks({"tasks": [{"id": 3, "data": {"a": 1}, "extra": 0}, None, {"id": "x", "data": []}]})
    assert tasks == [Task(3, {"a": 1}), Task(0, {}), Task(0, {})]


@pytest.mark.parametrize("body", [{}, {"tasks": None}, {"tasks": {"id": 1}}])
def test_a_request_without_tasks_is_refused(body: dict[str, object]) -> None:
    with pytest.raises(RequestError, match='needs "tasks"'):
        read_tasks(body)


@pytest.mark.parametrize("value", [None, "", "  ", 3, ["a.jpg", "b.jpg"], {"a": 1}])
def test_a_task_without_one_image_says_so(value: object) -> None:
    with pytest.raises(RequestError, match=r"task 7 has no image: data\.photo is .*; set it to the address of one"):
        Task(7, {"photo": value}).reference(CONTROL)


def text_field(name: str, *lines: str, to_name: str = "image") -> dict[str, object]:
    return {"type": "textarea", "from_name": name, "to_name": to_name, "value": {"text": list(lines)}}


def test_the_granularity_field_counts_before_other_text_fields() -> None:
    note, wish = text_field("note", "hello"), text_field("granularity", "3", "5")
    elsewhere = text_field("granularity", "7", to_name="other")
    point = {"type": "keypointlabels", "from_name": "kp", "to_name": "image", "value": {"x": 1}}
    assert text_commands({"result": [point, wish, note, elsewhere]}, CONTROL) == ["3", "5"]
    assert text_commands({"result": [note, elsewhere]}, CONTROL) == ["hello"]


@pytest.mark.parametrize(
    "context", [None, "text", [], {}, {"result": None}, {"result": [None, {"type": "textarea", "value": "x"}]}]
)
def test_contexts_without_text_hold_no_line(context: object) -> None:
    assert text_commands(context, CONTROL) == []


@pytest.mark.parametrize(
    ("value", "params"),
    [('{"granularity": "fine"}', {"granularity": "fine"}), ({"a": 1}, {"a": 1}), (None, {}), ("", {}), ("[1]", {}),
     ("not json", {}), ([1], {}), (7, {})],
)  # fmt: skip
def test_extra_parameters_are_taken_in_every_form_and_garbage_is_nothing(value: object, params: object) -> None:
    assert read_extra_params(value) == params


def test_a_region_is_what_label_studio_shows() -> None:
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


def test_ids_are_the_same_for_the_same_answer_and_for_no_other() -> None:
    others = [
        region_id(replace(TASK, id=8), CONTROL, "v 0"),
        region_id(TASK, replace(CONTROL, from_name="other"), "v 0"),
        region_id(TASK, CONTROL, "w 0"),
        region_id(TASK, CONTROL, "v 1"),
        region_id(Task(7, {"photo": "https://example.org/b.jpg"}), CONTROL, "v 0"),
    ]
    assert region_id(TASK, CONTROL, "v 0") == region_id(TASK, CONTROL, "v 0")
    assert len({region_id(TASK, CONTROL, "v 0"), *others}) == 6


def test_a_withdrawn_region_shows_where_it_was_until_label_studio_deletes_it() -> None:
    gone = deletion_marker(Region(np.array([[False, True, True], [False, True, False]]), "A", 1.0, id="r"), CONTROL)
    assert (gone["id"], gone["dynamic"]) == ("r", True)
    assert brush.decode(gone["value"]["rle"], (2, 3)).tolist() == [[False, False, True], [False, False, False]]


def test_a_prediction_holds_the_regions_of_every_control() -> None:
    right = BrushControl("right", "r", "photo", ("A",))
    regions = [(CONTROL, [Region(MASK, "Region", 1.0)] * 2), (right, [Region(MASK, "A", 0.25)])]
    document = prediction(TASK, regions, "v").as_json()
    assert [region["from_name"] for region in document["result"]] == ["brush", "brush", "right"]
    assert len({region["id"] for region in document["result"]}) == 3
    assert (document["score"], document["model_version"]) == (0.75, "v")
