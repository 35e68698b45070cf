import pytest

from walkcut.errors import LabelConfigError
from walkcut.labelstudio.config import BrushControl, parse_brush_controls, semantic_labels

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
            "$photo",
            (),
            {"name": "brush", "toName": "image", "granularity": "fine"},
            ("Car", "Sky"),
        ),
    )


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ('<TextArea name="status" toName="image"/><TextArea name="granularity" toName="image"/>', "status"),
        ('<TextArea name="note" toName="image"/><TextArea name="granularity" toName="image"/>', "granularity"),
        ('<TextArea name="note" toName="image"/>', "note"),
        ('<TextArea name="status" toName="other"/>', ""),
    ],
)
def test_messages_go_to_the_text_field_named_status_or_granularity_or_the_first(fields: str, status: str) -> None:
    (control,) = parse_brush_controls(config(BRUSH + fields))
    assert control.status_field == status


def test_neutral_labels_are_those_marked_neutral() -> None:
    labels = '<Label value="Car"/><Label value="A" neutral="true"/><Label value="B" neutral="true"/>'
    (control,) = parse_brush_controls(config(f'<BrushLabels name="brush" toName="image">{labels}</BrushLabels>'))
    assert control.neutral_labels == ("A", "B")
    assert semantic_labels([control]) == {"Car"}


@pytest.mark.parametrize(
    ("labels", "neutral", "placeholders", "classes"),
    [
        ('<Label value="Sky"/><Label value="Tree"/>', (), ("",), {"Sky", "Tree"}),
        ('<Label value="Region"/>', ("Region",), ("Region",), set()),
        ('<Label value="A" neutral="true"/><Label value="Tree"/>', ("A",), ("A",), {"Tree"}),
    ],
)
def test_a_class_never_stands_for_regions_without_a_name(
    labels: str, neutral: tuple[str, ...], placeholders: tuple[str, ...], classes: set[str]
) -> None:
    (control,) = parse_brush_controls(config(f'<BrushLabels name="brush" toName="image">{labels}</BrushLabels>'))
    assert (control.neutral_labels, control.placeholders) == (neutral, placeholders)
    assert semantic_labels([control]) == classes
    assert not control.is_class("")


def test_a_label_is_called_by_its_alias_as_in_label_studios_results() -> None:
    labels = '<Label value="Himmel" alias="Sky"/><Label value="Gebiet" alias="Region" neutral="true"/>'
    (control,) = parse_brush_controls(config(f'<BrushLabels name="brush" toName="image">{labels}</BrushLabels>'))
    assert (control.labels, control.neutral_labels) == (("Sky", "Region"), ("Region",))


def test_each_image_has_its_first_brush() -> None:
    two_images = """<View><View><Image name="left" value="$l"/><Image name="right" value="$r"/></View>
        <BrushLabels name="b1" toName="right"><Label value="A"/></BrushLabels>
        <BrushLabels name="b2" toName="right"><Label value="B"/></BrushLabels>
        <BrushLabels name="b3" toName="left"><Label value="C"/></BrushLabels></View>"""
    found = [(control.from_name, control.to_name, control.image_value) for control in parse_brush_controls(two_images)]
    assert found == [("b1", "right", "$r"), ("b3", "left", "$l")]


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
def test_an_unusable_config_is_refused_with_the_remedy(label_config: str, message: str) -> None:
    with pytest.raises(LabelConfigError, match=message):
        parse_brush_controls(label_config)
