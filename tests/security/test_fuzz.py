"""Fuzz tests of the readers of labelling configs, Label Studio's JSON, lists of images, masks and granularities."""

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tests.builders.annotations import IMAGE, SIZE, masked
from tests.builders.fuzzing import JSON, Parser, as_text, fuzz_tests, mutated
from walkcut.bulk.sources.scan import read_sources
from walkcut.errors import (
    BrushError,
    GranularityError,
    LabelConfigError,
    RequestError,
    SettingsError,
)
from walkcut.hierarchy.granularity import parse_granularity
from walkcut.labelstudio.annotations import annotated_image_names, annotated_regions, region_numbers
from walkcut.labelstudio.config import parse_image_tags
from walkcut.labelstudio.json_export import items_of_page, region_labels, select_annotation
from walkcut.labelstudio.json_input import read_object
from walkcut.labelstudio.predictions import region_id
from walkcut.labelstudio.prompts import read_prompts, text_commands
from walkcut.labelstudio.shapes import rle
from walkcut.labelstudio.tasks import Task, TaskImage, read_extra_params, read_submission, read_tasks

ROOT = Path(__file__).parents[2]

# Label Studio's documents

CONFIGS = [path.read_bytes() for path in sorted((ROOT / "labelstudio_config").glob("*.xml"))]
TAGS = st.lists(
    st.sampled_from(
        ["<View>", "</View>", '<Image name="image" value="$photo"/>', '<BrushLabels name="b" toName="image"',
         '<Label value="A"/>', '<TextArea name="t" toName="image"/>', "</BrushLabels>", ">", "/>", "&#0;", "&a;",
         "<!--", "-->", "<![CDATA[", "]]>", '<!DOCTYPE v [<!ENTITY a "b">]>', 'neutral="true"', "<?x?>", "\ud800", "\0"]
    ),
    max_size=30,
).map("".join)  # fmt: skip
COORDINATE = st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from([0, 12.5, 50, 100, 1000])
KIND = st.sampled_from(["brushlabels", "rectanglelabels", "ellipselabels", "polygonlabels", "keypointlabels"])
STROKE = st.fixed_dictionaries(
    {}, optional={"type": st.sampled_from(["add", "eraser"]) | JSON, "points": st.lists(COORDINATE) | JSON,
                  "relativePoints": st.lists(COORDINATE) | JSON, "strokeWidth": COORDINATE,
                  "relativeStrokeWidth": COORDINATE},
)  # fmt: skip
VALUE = st.fixed_dictionaries(
    {kind: st.just(["Car"]) for kind in ("brushlabels", "rectanglelabels", "ellipselabels", "polygonlabels")}
    | {"keypointlabels": JSON | st.just(["Car"])},
    optional=dict.fromkeys(("x", "y", "width", "height", "rotation", "radiusX", "radiusY"), COORDINATE)
    | {"points": st.lists(st.tuples(COORDINATE, COORDINATE).map(list)) | JSON, "touches": st.lists(STROKE) | JSON,
       "rle": st.lists(st.integers(0, 255)) | JSON},
)  # fmt: skip
ITEM = st.fixed_dictionaries(
    {"type": KIND, "value": VALUE | JSON}, optional=dict.fromkeys(("id", "to_name", "original_width"), JSON)
)
RESULT = st.lists(ITEM | JSON, max_size=4) | JSON
ANNOTATION = st.fixed_dictionaries(
    {},
    optional={"id": JSON, "result": RESULT, "updated_at": JSON | st.datetimes().map(str), "was_cancelled": JSON,
              "parent_prediction": JSON},
)  # fmt: skip
TASK = st.fixed_dictionaries(
    {}, optional={"id": JSON, "data": JSON | st.dictionaries(st.just("photo"), JSON),
                  "drafts": st.lists(ANNOTATION) | JSON, "annotations": st.lists(ANNOTATION) | JSON,
                  "predictions": st.lists(ANNOTATION) | JSON},
)  # fmt: skip
BODIES = [
    json.dumps({"tasks": [{"id": 1, "data": {"photo": "a.jpg"}, "drafts": [{"result": [masked()]}]}], "project": "3.1",
                "params": {"context": {"result": [masked()]}}}).encode(),
    b'{"a": [1, -2.5e3, NaN, Infinity, true, null, "\\ud800\\u0000"], "a": {"b": [[[[]]]]}}',
    b"[" * 3000 + b"]" * 3000,
    b'{"a":' * 500 + b"1" + b"}" * 500,
    b'{"n": ' + b"9" * 5000 + b"}",
]  # fmt: skip


def read_body_tasks(body: Mapping[str, Any]) -> None:
    for task in read_tasks(body):
        assert isinstance(task, Task)
        with suppress(RequestError):
            image = TaskImage(task, IMAGE.tag)
            region_id(image, image.reference)


def read_context(document: object) -> None:
    for prompt in read_prompts(document, IMAGE):
        assert region_id(TaskImage(Task(1, {"photo": "\ud800"}), IMAGE.tag), prompt.id)
    for line in text_commands(document, IMAGE):
        assert isinstance(line, str)


def read_annotation(result: object) -> None:
    regions = annotated_regions(result, IMAGE, SIZE)
    assert all(region.mask.any() for region in regions)
    region_numbers(regions, SIZE)
    annotated_image_names(result)
    annotated_regions(result, "image", SIZE, strict=True)


# Lists of images

LISTS = [
    b'["a.jpg", {"image": "b.png", "x": [1, 2]}, {"data": {"url": "https://h/c.jpg"}}, 5, null, {"image": ""}]',
    b'"//[::1]/a"\n{"image": "http://[::1]:80/a"}\n\n{"path": "gs://b/k"}\nnull\n{"file_name": "\\u0000\\ud800"}\n"gs://["\n',
    b'\xef\xbb\xbfimage,x\na.jpg,1\n"b\n.jpg",2\n,3\nazure-blob://a/b c\n',
]


def read_list(suffix_and_content: tuple[str, bytes]) -> None:
    suffix, content = suffix_and_content
    with NamedTemporaryFile(suffix=suffix) as file:
        file.write(content)
        file.flush()
        list(read_sources([file.name]))


# Run-length codes

MASKS = [np.zeros(SIZE, bool), np.ones(SIZE, bool), np.eye(*SIZE, dtype=bool)]
CODES = [bytes(rle.encode(mask)) for mask in MASKS]
HEADER = CODES[0][:6]


def decode_run_lengths(data: bytes) -> None:
    assert rle.decode(list(data), SIZE).shape == SIZE


def test_samples_are_read() -> None:
    """Otherwise the fuzz tests would find nothing."""
    for sample in CODES:
        decode_run_lengths(sample)
    for sample in CONFIGS:
        assert parse_image_tags(sample.decode())
    assert read_object(BODIES[0])


PARSERS = [
    Parser("label configs", parse_image_tags, mutated(CONFIGS).map(as_text), (LabelConfigError,)),
    Parser("tags", parse_image_tags, TAGS | st.text(st.characters()), (LabelConfigError,)),
    Parser("bodies", read_object, mutated(BODIES) | st.binary(), (RequestError,)),
    Parser(
        "tasks",
        read_body_tasks,
        st.fixed_dictionaries({}, optional={"tasks": st.lists(TASK) | JSON}),
        (RequestError,),
        50,
    ),
    Parser("extra parameters", read_extra_params, JSON | mutated(BODIES).map(as_text), (RequestError,)),
    Parser(
        "submissions",
        lambda pair: read_submission(*pair),
        st.tuples(TASK | JSON, ANNOTATION | JSON),
        (RequestError,),
    ),
    Parser("prompts", read_context, st.fixed_dictionaries({}, optional={"result": RESULT}) | JSON, (RequestError,)),
    Parser("annotations", read_annotation, RESULT, (RequestError, BrushError)),
    Parser(
        "exports",
        lambda document: region_labels(items_of_page(select_annotation(document), 1)),
        st.lists(TASK | ANNOTATION) | TASK | ANNOTATION | RESULT | JSON,
        (SettingsError,),
        50,
    ),
    Parser(
        "lists",
        read_list,
        st.tuples(
            st.sampled_from([".json", ".jsonl", ".csv"]),
            mutated(LISTS) | st.lists(JSON).map(lambda rows: json.dumps(rows).encode()),
        ),
        (SettingsError,),
    ),
    Parser(
        "run-length codes",
        decode_run_lengths,
        mutated(CODES) | st.binary().map(lambda end: HEADER + end),
        (BrushError,),
    ),
    Parser("granularities", parse_granularity, st.text() | st.from_regex(r"(tau|k|n) *= *\S*"), (GranularityError,)),
]
test_a_parser_gives_a_value_or_its_error, test_a_parser_gives_a_value_or_its_error_at_length = fuzz_tests(PARSERS)
