"""The ready labelling configs are alike: the same verbs, fields and style, each with regions of its own shape."""

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from walkcut.inference.project import ProjectOptions, make_project
from walkcut.labelstudio.config import ImageTag, parse_image_tags, semantic_labels, unused_controls
from walkcut.labelstudio.tags import PROMPTS, Tag, is_prompt, read_tags

FOLDER = Path(__file__).parents[2] / "labelstudio_config"
TEXT = {path.stem: path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.xml"))}
SHAPES = {"walkcut": "brush", "classes": "polygon"}  # of those not named after their shape
OF_A_SHAPE = {"closable", "tolerance", "smoothing"}
POINTED_AT_WITH_BOXES = {"bitmask", "vector"}  # Label Studio takes a click on such a region as its selection
CLASSES = {"Person", "Animal", "Vehicle", "Plant", "Building"}
every_config = pytest.mark.parametrize("name", TEXT)


def image_tag(name: str) -> ImageTag:
    (tag,) = parse_image_tags(TEXT[name])
    return tag


def prompt_tags(name: str) -> list[Tag]:
    """Return the controls to point with."""
    return [tag for tag in read_tags(TEXT[name]) if any(is_prompt(label.name) for label in tag.labels)]


def elements(name: str) -> list[tuple[str, dict[str, str], str]]:
    """Return tag, attributes and text of all elements, but for prompts and what makes regions have a shape."""
    shape = SHAPES.get(name, name)
    found = list[tuple[str, dict[str, str], str]]()
    root = ET.fromstring(TEXT[name])
    for tools in root.findall(".//View[@className='walkcut']"):
        for prompts in tools.findall("./View/View[@className='prompts']/.."):
            tools.remove(prompts)
    for element in root.iter():
        attributes = {key: value for key, value in element.attrib.items() if key not in OF_A_SHAPE and value != shape}
        tag = "control" if element.get("name") == shape else element.tag
        found.append((tag, attributes, (element.text or "").strip()))
    return found


def test_there_is_one_for_each_shape_and_one_with_classes() -> None:
    assert TEXT.keys() == {"walkcut", "bitmask", "polygon", "vector", "ellipse", "rectangle", "classes"}


@every_config
def test_regions_are_written_with_the_control_that_the_config_is_for(name: str) -> None:
    (control,) = image_tag(name).controls
    assert control.shape == SHAPES.get(name, name)
    assert unused_controls(TEXT[name]) == ()


@every_config
def test_unnamed_regions_differ_in_colour_and_messages_have_a_field(name: str) -> None:
    tag = image_tag(name)
    assert (len(tag.neutral_labels), tag.status_field) == (6, "status")


@every_config
def test_the_verbs_are_all_there_are(name: str) -> None:
    labels = [label.name for tag in prompt_tags(name) for label in tag.labels]
    assert tuple(filter(is_prompt, labels)) == PROMPTS
    points = [] if name in POINTED_AT_WITH_BOXES else ["keypointlabels"]
    assert [tag.kind for tag in prompt_tags(name)] == [*points, "rectanglelabels"]


@every_config
def test_defaults_are_understood(name: str) -> None:
    project = make_project(parse_image_tags(TEXT[name]), ProjectOptions(max_regions=7, min_area=0.5), {})
    assert (project.options.max_regions, project.options.min_area) == (40, 0.001)


@every_config
def test_the_style_is_the_same(name: str) -> None:
    styles = [element.text for text in (TEXT[name], TEXT["walkcut"]) for element in ET.fromstring(text).iter("Style")]
    assert len(styles) == 2
    assert len(set(styles)) == 1


@pytest.mark.parametrize("name", sorted(TEXT.keys() - {"walkcut", "classes"}))
def test_a_shape_has_the_config_of_the_brush_with_another_control(name: str) -> None:
    assert elements(name) == elements("walkcut")


def test_each_class_can_be_clicked_and_boxed() -> None:
    assert semantic_labels([image_tag("classes")]) == CLASSES
    for tag in prompt_tags("classes"):
        assert {label.name for label in tag.labels if not is_prompt(label.name)} == CLASSES
