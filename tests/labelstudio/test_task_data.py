import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from walkcut.labelstudio.task_data import resolve, value_at, with_value

KEYS = st.from_regex(r"[A-Za-z_]\w{0,5}", fullmatch=True, alphabet=st.characters(max_codepoint=127))
PATHS = st.builds(lambda first, rest: first + "".join(rest), KEYS, st.lists(st.just("[0]") | KEYS.map(".{}".format)))


@pytest.mark.parametrize(
    ("text", "data", "value"),
    [
        ("$image", {"image": "a.jpg"}, "a.jpg"),
        ("$image.url", {"image": {"url": "a.jpg"}}, "a.jpg"),
        ("$image.url", {"image.url": "a.jpg", "image": {"url": "b.jpg"}}, "a.jpg"),
        ("$img[0]", {"img": ["a.jpg", "b.jpg"]}, "a.jpg"),
        ("$img.1", {"img": ["a.jpg", "b.jpg"]}, "b.jpg"),
        ("$data.img[0].url", {"data": {"img": [{"url": "a.jpg"}]}}, "a.jpg"),
        ("$pages", {"pages": ["a.jpg"]}, ["a.jpg"]),
        ("http://h/$file", {"file": "a.jpg"}, "http://h/a.jpg"),
        ("$base/$file", {"base": "http://h", "file": "a.jpg"}, "http://h/a.jpg"),
        ("http://h/$id?v=$v", {"id": 7, "v": 2.0}, "http://h/7?v=2"),
        ("http://h/$file", {"file": "$base", "base": "x"}, "http://h/$base"),
        ("http://h/a.jpg", {}, "http://h/a.jpg"),
        ("$image", {}, None),
        ("$image.url", {"image": "a.jpg"}, None),
        ("$img[2]", {"img": ["a.jpg"]}, None),
        ("$img[x]", {"img": ["a.jpg"]}, None),
        ("http://h/$file", {"file": None}, None),
        ("http://h/$file", {"file": ["a"]}, None),
    ],
)
def test_variables_are_resolved_as_in_label_studios_editor(text: str, data: dict[str, Any], value: object) -> None:
    assert resolve(text, data) == value


@given(PATHS, st.dictionaries(KEYS, st.text() | st.lists(st.text()) | st.dictionaries(KEYS, st.text())))
def test_a_value_that_is_put_at_a_path_is_found_there_and_other_fields_stay(path: str, data: dict[str, Any]) -> None:
    before = repr(data)
    changed = with_value(data, path, "a.jpg")
    assert resolve(f"${path}", changed) == value_at(path, changed) == "a.jpg"
    assert repr(data) == before
    first = re.findall(r"\w+", path)[0]
    assert {key: value for key, value in changed.items() if key != first} == {
        key: value for key, value in data.items() if key != first
    }
