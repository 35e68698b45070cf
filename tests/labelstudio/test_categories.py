from xml.sax.saxutils import quoteattr

import pytest
from defusedxml.ElementTree import fromstring
from hypothesis import given
from hypothesis import strategies as st
from label_studio_sdk.converter.converter import Converter

from walkcut.labelstudio.categories import label_categories
from walkcut.labelstudio.config import parse_image_tags

attributes = st.fixed_dictionaries(
    {"value": st.sampled_from(["Sky", "car", "Über", "a&b", ""])},
    optional={
        "alias": st.sampled_from(["sky", "Car", "x"]),
        "category": st.sampled_from(["0", "1", "2", " 3", "-1", "10", "x", "", "1.5"]),
    },
)
controls = st.lists(st.lists(attributes, max_size=4), min_size=1, max_size=2)


def config(labels: list[list[dict[str, str]]]) -> str:
    """A config with a brush control and, if there are more labels, choices."""
    tags = [
        "".join(
            f"<View><{tag} {' '.join(f'{name}={quoteattr(value)}' for name, value in label.items())}/></View>"
            for label in group
        )
        for group, tag in zip(labels, ("Label", "Choice"), strict=False)
    ]
    brush = f'<BrushLabels name="b" toName="i">{tags[0]}</BrushLabels>'
    choices = f'<Choices name="c" toName="i">{tags[1]}</Choices>' if tags[1:] else ""
    return f'<View><Image name="i" value="$image"/>{brush}{choices}</View>'


@given(controls)
def test_numbers_are_those_of_label_studios_exports(labels: list[list[dict[str, str]]]) -> None:
    numbers = label_categories(fromstring(config(labels)))
    # Label Studio lets an alias stand in for the value, so that only aliases have numbers there.
    _, expected = Converter(config(labels), project_dir=None)._get_labels()
    if numbers:
        assert {name: numbers[name] for name in expected} == expected


def test_a_label_belongs_to_the_nearest_control_around_it() -> None:
    inner = '<Choices name="c" toName="i"><Choice value="Car" category="7"/></Choices>'
    text = config([[{"value": "Car", "category": "4"}]]).replace("</BrushLabels>", f"{inner}</BrushLabels>")
    _, expected = Converter(text, project_dir=None)._get_labels()
    assert label_categories(fromstring(text)) == expected == {"Car": 7}


def test_value_and_alias_have_the_same_number() -> None:
    text = config([[{"value": "Car", "alias": "auto", "category": "4"}, {"value": "Sky"}]])
    assert label_categories(fromstring(text)) == {"Car": 4, "auto": 4, "Sky": 0}
    (control,) = parse_image_tags(text)
    assert control.categories == {"Car": 4, "auto": 4, "Sky": 0}


@pytest.mark.parametrize("category", ["", "one", "1.5"])
def test_a_category_that_is_no_number_counts_as_missing(category: str) -> None:
    assert label_categories(fromstring(config([[{"value": "Car", "category": category}]]))) == {}
