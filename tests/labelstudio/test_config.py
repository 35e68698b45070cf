import pytest

from walkcut.errors import LabelConfigError, SettingsError
from walkcut.labelstudio.config import BrushControl, parse_brush_controls, semantic_labels, unused_controls

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


@pytest.mark.parametrize(
    ("text", "is_neutral"),
    [
        *((text, True) for text in ("true", "True", "1", "yes")),
        *((text, False) for text in ("false", "False", "0", "no", "")),
    ],
)
def test_neutral_is_written_as_people_write_it(text: str, is_neutral: bool) -> None:
    labels = f'<Label value="A" neutral="{text}"/><Label value="B"/>'
    (control,) = parse_brush_controls(config(f'<BrushLabels name="b" toName="image">{labels}</BrushLabels>'))
    assert control.neutral_labels == (("A",) if is_neutral else ())


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
        (f'<View><Image value="$image"/>{BRUSH}</View>', '<Image> needs a name.*: write <Image name="image"'),
        *(
            (f'<View><Image name="image" value="{value}"/>{BRUSH}</View>', "no path of a field: write for example")
            for value in ("$img[$n]", "$img[]", "$image.", "$a..b", "https://host/$d[0")
        ),
        (config('<BrushLabels toName="image"><Label value="A"/></BrushLabels>'), 'write <BrushLabels name="brush"'),
        (config('<Polygon name="brush" toName="image"/><Choices name="brush2" toName="image"/>'), 'name="brush3"'),
    ],
)
def test_an_unusable_config_is_refused_with_the_remedy(label_config: str, message: str) -> None:
    with pytest.raises(LabelConfigError, match=message):
        parse_brush_controls(label_config)


ALIASED = (
    '<BrushLabels name="brush" toName="image"><Label value="Car" alias="c"/><Label value="Part" alias="p" '
    'neutral="true"/><Label value="c"/></BrushLabels>'
    '<KeyPointLabels name="point" toName="image"><Label value="Finer" alias="f"/><Label value="Car" alias="k"/>'
    '<Label value="Other" alias="o"/></KeyPointLabels>'
)


def test_an_alias_is_the_label_and_its_value_another_name_for_it() -> None:
    (control,) = parse_brush_controls(config(ALIASED.replace('<Label value="c"/>', "")))
    assert (control.labels, control.neutral_labels) == (("c", "p"), ("p",))
    assert semantic_labels([control]) == {"c"}
    names = {name: control.label_of(name) for name in ("Car", "c", "Part", "f", "Finer", "k", "o", "Other", "?")}
    assert names == {
        "Car": "c", "c": "c", "Part": "p", "f": "Finer", "Finer": "Finer", "k": "c", "o": "o", "Other": "o", "?": "?"
    }  # fmt: skip


def test_an_alias_comes_before_the_value_of_another_label() -> None:
    labels = '<Label value="A" alias="B"/><Label value="B" alias="A"/>'
    (control,) = parse_brush_controls(config(f'<BrushLabels name="brush" toName="image">{labels}</BrushLabels>'))
    assert control.labels == ("B", "A")
    assert (control.label_of("A"), control.label_of("B")) == ("A", "B")


@pytest.mark.parametrize(
    ("label", "name"),
    [("<Label>Tree</Label>", "Tree"), ('<Label value="x">Tree</Label>', "Tree"), ('<Label alias="t"/>', "t"),
     ('<Label value=" A "/>', " A "), ('<Label value="$first"/>', "$first"), ("<Label/>", "")],
)  # fmt: skip
def test_labels_have_the_names_that_label_studio_writes(label: str, name: str) -> None:
    tag = f'<BrushLabels name="brush" toName="image">{label}<Label value="Z"/></BrushLabels>'
    (control,) = parse_brush_controls(config(tag))
    assert control.labels == tuple(filter(None, (name, "Z")))


@pytest.mark.parametrize(
    ("value", "path"),
    [("$image", "image"), ("$image.url", "image.url"), ("$img[0].url", "img[0].url"), ("http://h/$f", None),
     ("$base/$f", None), ("$img[1]", None), ("http://h/a.jpg", None)],
)  # fmt: skip
def test_files_need_a_field_that_holds_one_image(value: str, path: str | None) -> None:
    control = BrushControl("brush", "image", value, ("A",))
    if path is not None:
        assert control.data_path == path
    else:
        with pytest.raises(SettingsError, match="does not name a field that holds one image file: write"):
            assert control.data_path


@pytest.mark.parametrize(
    ("beside", "unused"),
    [
        ('<BrushLabels name="b2" toName="image"><Label value="B"/></BrushLabels>', ["<BrushLabels name='b2'>"]),
        ('<PolygonLabels name="p" toName="image"><Label value="A"/></PolygonLabels>', ["<PolygonLabels name='p'>"]),
        ('<Labels name="l" toName="image"/>', ["<Labels name='l'>"]),
        ('<Ellipse name="e" toName="image"/>', ["<Ellipse name='e'>"]),
        ('<KeyPointLabels name="k" toName="image"><Label value="?"/></KeyPointLabels>', ["<KeyPointLabels name='k'>"]),
        ('<RectangleLabels name="r" toName="image"><Label value="A"/></RectangleLabels>', []),
        ('<KeyPointLabels name="k" toName="image"><Label value="finer" alias="f"/></KeyPointLabels>', []),
        ('<Brush name="plain" toName="image"/><Choices name="c" toName="image"/>', []),
        ('<Text name="t" value="$t"/><Labels name="l" toName="t"><Label value="A"/></Labels>', []),
    ],
)  # fmt: skip
def test_controls_that_are_left_out_are_named_with_the_remedy(beside: str, unused: list[str]) -> None:
    found = unused_controls(config(BRUSH + beside))
    assert [problem.partition("of ")[2].partition(" are")[0] for problem, _ in found] == unused
    assert all("add their labels to <BrushLabels name='brush'>" in remedy for _, remedy in found)


@pytest.mark.parametrize("tag", ["Repeater", "Polygon", "View", "Image"])
def test_deeply_nested_tags_take_no_time(tag: str) -> None:
    nested = f'<{tag} name="x" toName="image">' * 18_000 + f"</{tag}>" * 18_000
    assert parse_brush_controls(config(BRUSH + nested))[0].from_name == "brush"
