"""Attacks by documents: labelling configs, JSON bodies, annotations, run-length codes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.builders.annotations import IMAGE, SIZE, item
from walkcut.errors import BrushError, LabelConfigError, RequestError
from walkcut.labelstudio.annotations import annotated_regions
from walkcut.labelstudio.config import parse_image_tags
from walkcut.labelstudio.json_input import read_object
from walkcut.labelstudio.predictions import region_id
from walkcut.labelstudio.prompts import read_prompts, text_commands
from walkcut.labelstudio.shapes import rle
from walkcut.labelstudio.tasks import Task, TaskImage, parse_id, read_extra_params

BRUSH = '<Image name="image" value="$photo"/><BrushLabels name="b" toName="image"><Label value="A"/></BrushLabels>'


def config(inside: str = "", before: str = "") -> str:
    return f"{before}<View>{BRUSH}{inside}</View>"


# Labelling configs


def unreadable(text: str, message: str = "is not readable XML") -> None:
    with pytest.raises(LabelConfigError, match=message) as caught:
        parse_image_tags(text)
    assert len(str(caught.value)) < 1000


def test_an_entity_however_small() -> None:
    """The underlying parser limits entities too, but differently in each version."""
    unreadable(config("&a;", '<!DOCTYPE v [<!ENTITY a "b">]>'), "EntitiesForbidden")


def test_a_billion_laughs() -> None:
    names = [f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10)]
    unreadable(config("&l9;", f'<!DOCTYPE v [<!ENTITY l0 "lol">{"".join(names)}]>'))


def test_quadratic_blow_up() -> None:
    unreadable(config("&a;" * 50_000, f'<!DOCTYPE v [<!ENTITY a "{"x" * 50_000}">]>'))


@pytest.mark.parametrize(
    "declared",
    ['<!ENTITY a SYSTEM "{place}">', '<!ENTITY % a SYSTEM "{place}"> %a;', '<!ENTITY a PUBLIC "x" "{place}">'],
)
def test_external_entities(declared: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    for place in ((tmp_path / "secret").as_uri(), "http://127.0.0.1:1/x"):
        with pytest.raises(LabelConfigError) as caught:
            parse_image_tags(config("&a;", f"<!DOCTYPE v [{declared.format(place=place)}]>"))
        assert "secret" not in str(caught.value).replace(place, "")


def test_a_config_of_tags_in_tags() -> None:
    depth = 70_000
    assert parse_image_tags("<View>" * depth + config() + "</View>" * depth)[0].name == "image"


def test_a_config_of_megabytes() -> None:
    unreadable(config("<View/>" * 200_000), "has 1400[0-9]{3} characters, more than 1000000: make it shorter")


def test_a_config_with_thousands_of_controls() -> None:
    """The text fields of each image are looked up in a table, without a search through all of them."""
    template = '<Image name="{0}" value="$p"/><BrushLabels name="b" toName="{0}"><Label value="A"/></BrushLabels>'
    many = "".join(f'{template.format(n)}<TextArea name="t{n}" toName="{n}"/>' for n in range(6000))
    image_tags = parse_image_tags(f"<View>{many}</View>")
    assert [image_tag.status_field for image_tag in image_tags] == [f"t{n}" for n in range(6000)]


@pytest.mark.parametrize("text", ["\0", "\ud800", "&#xD800;", "&#0;", "<View>\x1b</View>", "<View", "]]>"])
def test_configs_of_odd_characters(text: str) -> None:
    unreadable(config(text) if not text.startswith("<") else text)


# Bodies


def refused(body: bytes, message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        read_object(body)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "body",
    [b"[" * 1_000_000, b'{"a":' * 100_000, b'{"a":' + b"[" * 101 + b"]" * 101 + b"}",
     b'{"a":' * 102 + b"1" + b"}" * 102,
     b'{"a":[' * 60 + b"]}" * 60],
    ids=["lists", "objects", "101 lists", "102 objects", "mixed"],
)  # fmt: skip
def test_lists_in_lists_in_lists(body: bytes) -> None:
    refused(body, "more than 100 deep|must be a JSON object")


def test_nesting_within_the_limit_is_accepted() -> None:
    assert read_object(b'{"a":' + b"[" * 99 + b"]" * 99 + b"}")
    assert read_object(b'{"a": [' + b"[]," * 5000 + b"[]]}")


def test_lists_in_lists_within_a_text() -> None:
    for text in ("[" * 100_000, '{"a":' + "[" * 101 + "]" * 101 + "}"):
        with pytest.raises(RequestError, match="the extra parameters are text: write an object"):
            read_extra_params(text)
    assert read_extra_params('{"granularity": "fine"}') == {"granularity": "fine"}


@pytest.mark.parametrize(
    "body",
    [b"", b"\xff\xfe", b'{"a": "\xff"}', b"{'a': 1}", b'{"a": 1,}', b'{"a": ' + b"9" * 5000 + b"}", b"null", b"[]",
     b'"a"',
     b'{"a": 1} {}', b"\0" * 8, b'{"a": "\n"}', b"{" * 50, b"-"],
)  # fmt: skip
def test_bodies_that_are_no_json_object(body: bytes) -> None:
    refused(body, "must be a JSON object")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"tasks": 1, "tasks": 2}', {"tasks": 2}),
        (b'{"a": 1e999, "b": -Infinity}', {"a": float("inf"), "b": float("-inf")}),
        ('{"a": "ä"}'.encode("utf-16"), {"a": "ä"}),
        (b'\xef\xbb\xbf{"a": "\\ud800\\u0000"}', {"a": "\ud800\0"}),
        (b'{"__proto__": {"a": 1}, "constructor": 1}', {"__proto__": {"a": 1}, "constructor": 1}),
    ],
)
def test_odd_json_objects_are_accepted(body: bytes, expected: object) -> None:
    assert read_object(body) == expected


@pytest.mark.parametrize("value", [-1, 1 << 63, 10**400, True, 1.0, "1", None, [1], float("nan")])
def test_ids_that_no_database_holds(value: object) -> None:
    with pytest.raises(RequestError, match="needs a number as its id"):
        parse_id({"id": value, "more": "x" * 10_000})


def test_half_a_character_in_a_name() -> None:
    assert region_id(TaskImage(Task(1, {"photo": "data:\ud800,x"}), IMAGE.tag), "select \udfff") != ""


# What annotators draw


def too_much(result: list[dict[str, Any]], size: tuple[int, int], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        annotated_regions(result, IMAGE, size, strict=True)


def test_more_masks_than_memory_holds() -> None:
    boxes = [item("rectanglelabels", x=1, y=1, width=1, height=1) | {"id": f"r{index}"} for index in range(100)]
    too_much(boxes, (10_000, 10_000), "100 regions on an image of 10000×10000 pixels are too many: draw fewer")


def test_strokes_that_take_hours() -> None:
    stroke = {"type": "add", "relativePoints": [0, 0, 100, 100] * 10_000, "relativeStrokeWidth": 1000}
    drawn = item("brushlabels", touches=[stroke]) | {"original_width": 3000, "original_height": 3000}
    too_much([drawn], (3000, 3000), "cover the image too many times: draw fewer")


def test_a_polygon_of_ten_thousand_corners() -> None:
    """Each corner costs time for the rows that it crosses, not for the whole image."""
    angles = np.linspace(0, 2 * np.pi, 10_000, endpoint=False)
    corners = np.stack([50 + 50 * np.cos(angles), 50 + 50 * np.sin(angles)], axis=1).tolist()
    drawn = item("polygonlabels", points=corners) | {"original_width": 2000, "original_height": 2000}
    (region,) = annotated_regions([drawn], IMAGE, (2000, 2000), strict=True)
    assert region.mask.mean() == pytest.approx(np.pi / 4, rel=1e-4)


def test_more_clicks_than_anybody_makes() -> None:
    click = {"type": "keypointlabels", "value": {"x": 1, "y": 1, "keypointlabels": ["Finer"]}}
    assert len(read_prompts({"result": [click] * 200}, IMAGE)) == 200
    with pytest.raises(RequestError, match="201 points and boxes are more than 200"):
        read_prompts({"result": [click] * 201}, IMAGE)


def test_more_lines_than_anybody_types() -> None:
    typed = {"type": "textarea", "value": {"text": ["nonsense"] * 100_000 + ["finer", "12"]}}
    lines = text_commands({"result": [typed]}, IMAGE)
    assert (len(lines), lines[-2:]) == (200, ["finer", "12"])


# Run-length codes


def header(values: int, word: int = 7, sizes: tuple[int, int, int, int] = (2, 3, 7, 15)) -> str:
    return f"{values:032b}{word:05b}" + "".join(f"{size:04b}" for size in sizes)


def packed(bits: str) -> list[int]:
    bits += "0" * (-len(bits) % 8)
    return [int(bits[at : at + 8], 2) for at in range(0, len(bits), 8)]


FULL = SIZE[0] * SIZE[1] * 4
RUN = f"1{0b11:02b}{FULL - 1:016b}{255:08b}"


@pytest.mark.parametrize(
    ("bits", "message"),
    [
        (header(2**32 - 1) + RUN, "holds 4294967295 values"),
        (header(0) + RUN, "holds 0 values"),
        (header(FULL, word=31) + RUN, "of 32 bits"),
        (header(FULL, word=0) + RUN, "of 1 bits"),
        (header(FULL) + RUN.replace(f"{FULL - 1:016b}", "1" * 16), "more than the 320 values"),
        (header(FULL) + f"0{0b11:02b}{FULL - 1:016b}", "cut off"),
        (header(FULL) + "", "cut off"),
        (header(FULL, sizes=(0, 0, 0, 0)) + "1000" + "0" * 8, "cut off"),
    ],
    ids=["4 G values", "no values", "32-bit words", "1-bit words", "overrun", "literal", "nothing", "short runs"],
)
def test_codes_that_lie(bits: str, message: str) -> None:
    with pytest.raises(BrushError, match=message):
        rle.decode(packed(bits + "0" * 16), SIZE)


def test_the_code_that_the_others_are_made_of_is_read() -> None:
    assert rle.decode(packed(header(FULL) + RUN), SIZE).all()
