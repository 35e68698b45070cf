import pytest

from tests.builders.label_config import make_image_tag
from walkcut.errors import LabelConfigError, SettingsError
from walkcut.labelstudio.config import ControlTag, ImageTag, parse_image_tags, semantic_labels, unused_controls

BRUSH = '<BrushLabels name="brush" toName="image"><Label value="A"/></BrushLabels>'


def config(inside: str) -> str:
    return f'<View><Image name="image" value="$photo"/>{inside}</View>'


def test_names_and_attributes_come_from_the_label_config() -> None:
    labels = '<Label value="Car"/><Label value="Sky"/>'
    tag = f'<BrushLabels name="brush" toName="image" granularity="fine">{labels}</BrushLabels>'
    assert parse_image_tags(config(tag)) == (
        ImageTag(
            "image",
            "$photo",
            (ControlTag("brush", "brush", ("Car", "Sky"), "brush"),),
            options={"name": "brush", "toName": "image", "granularity": "fine"},
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
    (image_tag,) = parse_image_tags(config(BRUSH + fields))
    assert image_tag.status_field == status


@pytest.mark.parametrize(
    ("text", "is_neutral"),
    [
        *((text, True) for text in ("true", "True", "1", "yes")),
        *((text, False) for text in ("false", "False", "0", "no", "")),
    ],
)
def test_neutral_is_written_as_people_write_it(text: str, is_neutral: bool) -> None:
    labels = f'<Label value="A" neutral="{text}"/><Label value="B"/>'
    (image_tag,) = parse_image_tags(config(f'<BrushLabels name="b" toName="image">{labels}</BrushLabels>'))
    assert image_tag.neutral_labels == (("A",) if is_neutral else ())


def test_neutral_labels_are_those_marked_neutral() -> None:
    labels = '<Label value="Car"/><Label value="A" neutral="true"/><Label value="B" neutral="true"/>'
    (image_tag,) = parse_image_tags(config(f'<BrushLabels name="brush" toName="image">{labels}</BrushLabels>'))
    assert image_tag.neutral_labels == ("A", "B")
    assert semantic_labels([image_tag]) == {"Car"}


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
    (image_tag,) = parse_image_tags(config(f'<BrushLabels name="brush" toName="image">{labels}</BrushLabels>'))
    assert (image_tag.neutral_labels, image_tag.placeholders) == (neutral, placeholders)
    assert semantic_labels([image_tag]) == classes
    assert not image_tag.is_class("")


def test_a_label_is_called_by_its_alias_as_in_label_studios_results() -> None:
    labels = '<Label value="Himmel" alias="Sky"/><Label value="Gebiet" alias="Region" neutral="true"/>'
    (image_tag,) = parse_image_tags(config(f'<BrushLabels name="brush" toName="image">{labels}</BrushLabels>'))
    assert (image_tag.labels, image_tag.neutral_labels) == (("Sky", "Region"), ("Region",))


def test_each_image_has_all_its_controls() -> None:
    two_images = """<View><View><Image name="left" value="$l"/><Image name="right" value="$r"/></View>
        <BrushLabels name="b1" toName="right"><Label value="A"/></BrushLabels>
        <BrushLabels name="b2" toName="right"><Label value="B"/></BrushLabels>
        <BrushLabels name="b3" toName="left"><Label value="C"/></BrushLabels></View>"""
    found = [(tag.name, tag.value, [control.name for control in tag.controls]) for tag in parse_image_tags(two_images)]
    assert found == [("right", "$r", ["b1", "b2"]), ("left", "$l", ["b3"])]


KINDS = ["Brush", "Bitmask", "Polygon", "Vector", "Ellipse", "Rectangle"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("labels", ["own", "apart", "none"])
def test_every_shape_takes_regions_with_labels_of_its_own_apart_or_without(kind: str, labels: str) -> None:
    inside = '<Label value="Sky"/><Label value="Tree"/>'
    tags = {
        "own": f'<{kind}Labels name="r" toName="image">{inside}</{kind}Labels>',
        "apart": f'<{kind} name="r" toName="image"/><Labels name="l" toName="image">{inside}</Labels>',
        "none": f'<{kind} name="r" toName="image"/>',
    }
    (image_tag,) = parse_image_tags(config(tags[labels]))
    names = () if labels == "none" else ("Sky", "Tree")
    (control,) = image_tag.controls
    assert control == ControlTag("r", kind.lower(), names, {"own": "r", "apart": "l", "none": ""}[labels])
    assert control.result_type == kind.lower() + ("labels" if labels == "own" else "")
    assert (image_tag.labels, image_tag.placeholders) == (names, ("",))


def labels_tag(kind: str, *labels: str, more: str = "") -> str:
    inside = "".join(f'<Label value="{label}"/>' for label in labels)
    return f'<{kind}Labels name="{kind.lower()}" toName="image" {more}>{inside}</{kind}Labels>'


@pytest.mark.parametrize(
    ("tags", "output", "expected"),
    [
        ([("Rectangle", "A", "B"), ("Brush", "A", "B")], "", {"A": "brush", "B": "brush", "": "brush"}),
        ([("Rectangle", "A", "B"), ("Brush", "A", "B")], "rectangle", {"A": "rectangle", "": "rectangle"}),
        ([("Rectangle", "Car"), ("Polygon", "Sky")], "", {"Car": "rectangle", "Sky": "polygon", "": "polygon"}),
        ([("Rectangle", "Car", "Sky"), ("Polygon", "Sky")], "", {"Car": "rectangle", "Sky": "polygon"}),
        ([("Brush", "A"), ("Polygon", "A"), ("Bitmask", "A")], "Polygon", {"A": "polygon"}),
        ([("Brush", "A"), ("Rectangle", "Re-segment"), ("KeyPoint", "A", "Finer")], "", {"A": "brush"}),
    ],
)
def test_a_region_is_written_with_the_control_of_its_label_or_the_preferred_one(
    tags: list[tuple[str, ...]], output: str, expected: dict[str, str]
) -> None:
    text = config("".join(labels_tag(*tag) for tag in tags))
    (image_tag,) = parse_image_tags(text, output)
    assert {label: image_tag.control_of(label).shape for label in expected} == expected
    assert len({label for control in image_tag.controls for label in control.labels}) == len(
        [label for control in image_tag.controls for label in control.labels]
    )


def test_an_attribute_of_a_tag_chooses_the_shape() -> None:
    chosen = labels_tag("Brush", "A", "B") + labels_tag("Polygon", "A", "B", more='walkcut_output="polygon"')
    (image_tag,) = parse_image_tags(config(chosen))
    assert image_tag.control_of("A").shape == "polygon"


def test_an_attribute_comes_before_the_extra_parameter_and_may_name_the_tag() -> None:
    chosen = labels_tag("Brush", "A") + labels_tag("Polygon", "A", more='walkcut_output=" PolygonLabels"')
    (image_tag,) = parse_image_tags(config(chosen), "brush")
    assert image_tag.control_of("A").shape == "polygon"


def test_an_attribute_on_an_image_chooses_the_shape_there() -> None:
    tags = [labels_tag(kind, "A", more=f'walkcut_output="{kind}"') for kind in ("Brush", "Polygon")]
    other = "".join([tags[1], labels_tag("Brush", "A")]).replace('toName="image"', 'toName="b"')
    other = other.replace(' name="', ' name="b_')
    image_tags = parse_image_tags(config(tags[0] + '<Image name="b" value="$b"/>' + other))
    assert [image_tag.control_of("A").shape for image_tag in image_tags] == ["brush", "polygon"]


DYNAMIC = '<PolygonLabels name="p" toName="image" value="$of.task">{}</PolygonLabels>'
TASK = {"of": {"task": [{"value": "Car", "alias": "car"}, {"value": "Own"}, {"value": ""}, "Bus", {"value": 3}]}}


@pytest.mark.parametrize("own", ["", '<Label value="Own"/>'])
def test_labels_of_a_task_are_classes_of_the_control_that_takes_them(own: str) -> None:
    (image_tag,) = parse_image_tags(config(BRUSH + DYNAMIC.format(own)))
    assert image_tag.neutral_labels == ("A",)
    assert semantic_labels([image_tag]) == ({"Own"} if own else set())  # those of the project can be learned
    of_task = image_tag.with_task_labels(TASK)
    assert [control.labels for control in of_task.controls] == [("A",), ("Own", "car") if own else ("car", "Own")]
    assert (of_task.control_of("car").name, of_task.label_of("Car"), of_task.is_class("car")) == ("p", "car", True)


@pytest.mark.parametrize("data", [{}, {"of": None}, {"of": {"task": "Car"}}, {"of": {"task": [["Car"]]}}])
def test_a_task_without_labels_leaves_those_of_the_project(data: dict[str, object]) -> None:
    (image_tag,) = parse_image_tags(config(DYNAMIC.format("")))
    assert image_tag.with_task_labels(data) == image_tag
    assert (image_tag.controls[0].result_type, image_tag.placeholders) == ("polygonlabels", ("",))


def test_a_shape_and_its_labels_of_a_task_may_be_apart() -> None:
    tags = '<Polygon name="p" toName="image"/><Labels name="l" toName="image" value="$of.task"/>'
    (image_tag,) = parse_image_tags(config(tags))
    (control,) = image_tag.with_task_labels(TASK).controls
    assert (control.labels, control.labels_name, control.result_type) == (("car", "Own"), "l", "polygon")


def test_several_controls_with_the_labels_of_a_task_have_regions_in_the_preferred_one() -> None:
    boxes = DYNAMIC.format("").replace("Polygon", "Rectangle").replace('"p"', '"r"')
    points = '<KeyPointLabels name="k" toName="image" value="${}"/>'
    text = config(boxes + DYNAMIC.format("") + points.format("of.task"))
    (image_tag,) = parse_image_tags(text)
    assert ([control.name for control in image_tag.controls], unused_controls(text)) == (["p"], ())
    assert len(unused_controls(config(boxes + points.format("others")))) == 1


@pytest.mark.parametrize(("output", "remedy"), [("ellipse", "add <EllipseLabels>"), ("masks", "remove it")])
def test_a_shape_without_a_control_is_refused_with_those_that_there_are(output: str, remedy: str) -> None:
    reason = f'have walkcut_output="{output}", and .* controls for brush: write one of these, or {remedy}'
    with pytest.raises(LabelConfigError, match=f"the extra parameters {reason}"):
        parse_image_tags(config(BRUSH), output)


def test_a_shape_whose_control_cannot_be_used_is_refused_with_the_reason() -> None:
    tags = BRUSH + '<Polygon name="p" toName="other" walkcut_output="polygon"/>'
    with pytest.raises(LabelConfigError, match=r"has walkcut_output=\"polygon\", and <Polygon name='p'> needs toName"):
        parse_image_tags(config(tags))


def test_a_list_of_images_is_read_from_its_field() -> None:
    (image_tag,) = parse_image_tags(f'<View><Image name="image" valueList="$pages"/>{BRUSH}</View>')
    assert (image_tag.value, image_tag.is_list, image_tag.data_path) == ("$pages", True, "pages[0]")


def test_the_only_label_of_the_preferred_control_is_neutral() -> None:
    (image_tag,) = parse_image_tags(config(labels_tag("Rectangle", "Car") + labels_tag("Brush", "Region")))
    assert image_tag.neutral_labels == ("Region",)


@pytest.mark.parametrize("tolerance", ["2.5", "0", "-1", "nan", "101", "x"])
def test_a_tolerance_is_a_number_of_pixels(tolerance: str) -> None:
    tag = config(labels_tag("Polygon", "A", more=f'tolerance="{tolerance}"'))
    if tolerance in {"2.5", "0"}:
        assert parse_image_tags(tag)[0].controls[0].tolerance == float(tolerance)
    else:
        with pytest.raises(LabelConfigError, match=f'tolerance="{tolerance}": write pixels from 0 to 100'):
            parse_image_tags(tag)


@pytest.mark.parametrize(
    ("label_config", "message"),
    [
        ("", "is not readable XML"),
        ("<View>", "is not readable XML"),
        ('<!DOCTYPE x [<!ENTITY a "b">]><View>&a;</View>', "is not readable XML"),
        ("<View/>", "needs a control that takes regions, such as BrushLabels, on an Image"),
        (config('<KeyPointLabels name="k" toName="image"><Label value="A"/></KeyPointLabels>'), "takes none: add <Bru"),
        (config('<RectangleLabels name="r" toName="image"><Label value="Re-segment"/></RectangleLabels>'), "Region"),
        (config('<BrushLabels name="b" toName="other"><Label value="A"/></BrushLabels>'), "needs toName"),
        (
            config('<PolygonLabels name="b" toName="image" value="labels"/>'),
            'write value="\\$labels", where labels is the field',
        ),
        (config('<BrushLabels name="b" toName="image"/>'), "needs a <Label"),
        (f'<View><Image name="image" valueList="https://h/$pages"/>{BRUSH}</View>', r'write valueList="\$pages"'),
        (f'<View><Image value="$image"/>{BRUSH}</View>', '<Image> needs a name.*: write <Image name="image"'),
        *(
            (f'<View><Image name="image" value="{value}"/>{BRUSH}</View>', "no path of a field: write for example")
            for value in ("$img[$n]", "$img[]", "$image.", "$a..b", "https://host/$d[0")
        ),
        (config('<BrushLabels toName="image"><Label value="A"/></BrushLabels>'), 'write <BrushLabels name="brush"'),
        (config('<Text name="brush" value="$t"/><Choices name="brush2" toName="image"/>'), 'name="brush3"'),
    ],
)
def test_an_unusable_config_is_refused_with_the_remedy(label_config: str, message: str) -> None:
    with pytest.raises(LabelConfigError, match=message):
        parse_image_tags(label_config)


ALIASED = (
    '<BrushLabels name="brush" toName="image"><Label value="Car" alias="c"/><Label value="Part" alias="p" '
    'neutral="true"/><Label value="c"/></BrushLabels>'
    '<KeyPointLabels name="point" toName="image"><Label value="Finer" alias="f"/><Label value="Car" alias="k"/>'
    '<Label value="Other" alias="o"/></KeyPointLabels>'
)


def test_an_alias_is_the_label_and_its_value_another_name_for_it() -> None:
    (image_tag,) = parse_image_tags(config(ALIASED.replace('<Label value="c"/>', "")))
    assert (image_tag.labels, image_tag.neutral_labels) == (("c", "p"), ("p",))
    assert semantic_labels([image_tag]) == {"c"}
    names = {name: image_tag.label_of(name) for name in ("Car", "c", "Part", "f", "Finer", "k", "o", "Other", "?")}
    assert names == {
        "Car": "c", "c": "c", "Part": "p", "f": "Finer", "Finer": "Finer", "k": "c", "o": "o", "Other": "o", "?": "?"
    }  # fmt: skip


def test_an_alias_comes_before_the_value_of_another_label() -> None:
    labels = '<Label value="A" alias="B"/><Label value="B" alias="A"/>'
    (image_tag,) = parse_image_tags(config(f'<BrushLabels name="brush" toName="image">{labels}</BrushLabels>'))
    assert image_tag.labels == ("B", "A")
    assert (image_tag.label_of("A"), image_tag.label_of("B")) == ("A", "B")


@pytest.mark.parametrize(
    ("label", "name"),
    [("<Label>Tree</Label>", "Tree"), ('<Label value="x">Tree</Label>', "Tree"), ('<Label alias="t"/>', "t"),
     ('<Label value=" A "/>', " A "), ('<Label value="$first"/>', "$first"), ("<Label/>", "")],
)  # fmt: skip
def test_labels_have_the_names_that_label_studio_writes(label: str, name: str) -> None:
    tag = f'<BrushLabels name="brush" toName="image">{label}<Label value="Z"/></BrushLabels>'
    (image_tag,) = parse_image_tags(config(tag))
    assert image_tag.labels == tuple(filter(None, (name, "Z")))


@pytest.mark.parametrize(
    ("value", "path"),
    [("$image", "image"), ("$image.url", "image.url"), ("$img[0].url", "img[0].url"), ("http://h/$f", None),
     ("$base/$f", None), ("$img[1]", None), ("http://h/a.jpg", None)],
)  # fmt: skip
def test_files_need_a_field_that_holds_one_image(value: str, path: str | None) -> None:
    image_tag = make_image_tag(value)
    if path is not None:
        assert image_tag.data_path == path
    else:
        with pytest.raises(SettingsError, match="does not name a field that holds one image file: write"):
            assert image_tag.data_path


@pytest.mark.parametrize(
    ("beside", "unused"),
    [
        ('<PolygonLabels name="p" toName="image" value="$labels"/>', []),
        ('<PolygonLabels name="p" toName="image" value="labels"/>', ["<PolygonLabels name='p'> is left out"]),
        ('<EllipseLabels name="e" toName="image"/>', ["<EllipseLabels name='e'> is left out"]),
        ('<KeyPointLabels name="k" toName="image"><Label value="?"/></KeyPointLabels>',
         ["the points of <KeyPointLabels name='k'> are neither predicted nor learned from, as they cover nothing"]),
        ('<KeyPointLabels name="k" toName="image"><Label value="finer" alias="f"/></KeyPointLabels>', []),
        ('<RectangleLabels name="r" toName="image"><Label value="A"/></RectangleLabels>', []),
        ('<Brush name="plain" toName="image"/><Choices name="c" toName="image"/>', []),
        ('<Text name="t" value="$t"/><Labels name="l" toName="t"><Label value="A"/></Labels>', []),
    ],
)  # fmt: skip
def test_controls_that_are_left_out_are_named_with_the_remedy(beside: str, unused: list[str]) -> None:
    found = unused_controls(config(BRUSH + beside))
    assert [problem for problem, _ in found] == unused
    assert all("use labels of 'brush'" in remedy or "add" in remedy for _, remedy in found)


@pytest.mark.parametrize("tag", ["Repeater", "Polygon", "View", "Image"])
def test_deeply_nested_tags_take_no_time(tag: str) -> None:
    nested = f'<{tag} name="x" toName="image">' * 18_000 + f"</{tag}>" * 18_000
    assert parse_image_tags(config(BRUSH + nested))[0].controls[0].name == "brush"


def test_a_control_with_commands_is_the_last_choice() -> None:
    config = """<View><Image name="image" value="$image"/>
      <RectangleLabels name="point" toName="image"><Label value="Re-segment"/><Label value="Car"/></RectangleLabels>
      <Rectangle name="box" toName="image"/><Labels name="names" toName="image"><Label value="Car"/></Labels></View>"""
    (image_tag,) = parse_image_tags(config)
    assert [(control.name, control.labels) for control in image_tag.controls] == [("box", ("Car",))]
