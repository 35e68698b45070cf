import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from label_studio_sdk.converter.converter import Converter

from walkcut.errors import SettingsError
from walkcut.labelstudio.json_export import items_of_page, pages, region_labels, select_annotation


def annotation(identity: int, *, task: int = 1, updated: str = "", cancelled: bool = False) -> dict[str, Any]:
    return {"id": identity, "result": [f"result {identity}"], "updated_at": updated, "was_cancelled": cancelled}


EXPORT: list[Any] = [
    {"id": 1, "annotations": [annotation(7, updated="2026-02"), annotation(8, updated="2026-01"),
                              annotation(9, updated="2026-03", cancelled=True)]},
    {"id": 2, "annotations": [annotation(5)]},
    {"id": 3, "annotations": []},
    "no task",
]  # fmt: skip


@pytest.mark.parametrize(
    ("document", "task_id", "annotation_id", "selected"),
    [(EXPORT, 1, None, 7), (EXPORT, None, 8, 8), (EXPORT, 1, 9, 9), (EXPORT, 2, None, 5), (EXPORT[0], None, None, 7)],
)
def test_the_chosen_annotation_or_the_last_updated_is_selected(
    document: object, task_id: int | None, annotation_id: int | None, selected: int
) -> None:
    assert select_annotation(json.loads(json.dumps(document)), task_id=task_id, annotation_id=annotation_id) == [
        f"result {selected}"
    ]


@pytest.mark.parametrize(
    ("document", "task_id", "annotation_id", "message"),
    [
        (
            EXPORT,
            None,
            None,
            "several tasks: choose one of annotation 7 of task 1, annotation 8 of task 1, ann.* task 2",
        ),
        (EXPORT, 3, None, "no such annotation.*: choose one of .*annotation 9 of task 1 \\(cancelled\\), annotation 5"),
        (EXPORT, 2, 7, "no such annotation"),
        ([{"id": 1, "annotations": [annotation(n, cancelled=True) for n in range(20)]}], 1, None, "and 12 more$"),
        ([], None, None, "the export holds no annotation: annotate a task, and export it as JSON"),
        ({"id": 1, "image": "a.jpg", "brush": []}, None, None, "holds no annotation"),
        ([[annotation(7)]], None, None, "holds no annotation"),
        (
            [{"result": [1], "task": 3}, {"result": [2]}],
            None,
            None,
            "choose one of annotation None of task 3, .* of task ?",
        ),
        (
            {"annotation_id": 7, "pages": ["/a.jpg", "/b.jpg"], "brush": []},
            None,
            None,
            "which image of pages .*as JSON$",
        ),
        ("text", None, None, "holds no annotation"),
    ],
)
def test_an_ambiguous_choice_is_refused_with_the_candidates(
    document: object, task_id: int | None, annotation_id: int | None, message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        select_annotation(document, task_id=task_id, annotation_id=annotation_id)


ITEM = {
    "id": "r1",
    "from_name": "b",
    "to_name": "i",
    "type": "brushlabels",
    "value": {"rle": [], "brushlabels": ["Car"]},
}


@pytest.mark.parametrize(
    "document",
    [
        [ITEM],
        {"result": [ITEM]},
        {"id": 7, "result": [ITEM], "task": 5},
        {"id": 7, "result": [ITEM], "task": {"id": 5, "data": {"image": "a.jpg"}}, "completed_by": {"id": 1}},
        [{"id": 7, "result": [ITEM], "task": 5}],
        [{"data": {"image": "a.jpg"}, "annotations": [{"result": [ITEM]}]}],
        {"tasks": [{"id": 5, "annotations": [{"id": 7, "result": [ITEM]}]}], "total": 1},
        {"count": 1, "results": [{"id": 7, "result": [ITEM], "task": 5}]},
        {"action": "ANNOTATION_CREATED", "annotation": {"id": 7, "result": [ITEM]}, "task": {"id": 5}},
    ],
)
def test_annotations_are_found_in_all_documents_of_label_studio(document: object) -> None:
    assert select_annotation(document) == [ITEM]
    if isinstance(document, dict) and "task" in document:
        assert select_annotation(document, task_id=5) == [ITEM]
        with pytest.raises(SettingsError, match="annotation 7 of task 5"):
            select_annotation(document, task_id=6)


SHAPES: dict[str, dict[str, Any]] = {
    "brushlabels": {"format": "rle", "rle": [0, 1]},
    "polygonlabels": {"points": [[1, 2], [3, 4], [5, 6]], "closed": True},
    "rectanglelabels": {"x": 1, "y": 2, "width": 3, "height": 4, "rotation": 0},
    "ellipselabels": {"x": 1, "y": 2, "radiusX": 3, "radiusY": 4},
    "keypointlabels": {"x": 1, "y": 2, "width": 0.5},
}
TAGS = {kind: kind.title().replace("labels", "Labels") for kind in SHAPES} | {
    "brushlabels": "BrushLabels", "keypointlabels": "KeyPointLabels"
}  # fmt: skip
MIN_CONFIG = (
    '<View><Image name="i" value="$image"/><TextArea name="note" toName="i"/><Choices name="c" toName="i">'
    '<Choice value="x"/></Choices>'
    + "".join(f'<{tag} name="{kind}" toName="i"><Label value="Car"/></{tag}>' for kind, tag in TAGS.items())
    + "</View>"
)


@given(st.lists(st.tuples(st.sampled_from(list(SHAPES)), st.lists(st.sampled_from(["Car", "Sky"]), min_size=1))))
def test_regions_of_json_min_are_those_of_json(shapes: list[tuple[str, list[str]]]) -> None:
    sizes = {"original_width": 4, "original_height": 2}
    result: list[dict[str, Any]] = [
        {**sizes, "from_name": kind, "to_name": "i", "type": kind, "value": {**SHAPES[kind], kind: labels}}
        for kind, labels in shapes
    ]
    others = [
        {"from_name": "note", "to_name": "i", "type": "textarea", "value": {"text": ["a"]}},
        {"from_name": "c", "to_name": "i", "type": "choices", "value": {"choices": ["x"]}},
    ]
    annotated = {"id": 7, "result": [*others, *result], "created_at": "2026", "completed_by": 1}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "all.json")
        path.write_text(json.dumps([{"id": 5, "data": {"image": "a.jpg"}, "annotations": [annotated]}]))
        Converter(MIN_CONFIG, project_dir=None).convert_to_json_min(str(path), folder, is_dir=False)
        document = json.loads(Path(folder, "result.json").read_text())
    selected = select_annotation(document, task_id=5, annotation_id=7)
    assert len({region["id"] for region in selected}) == len(result)
    names = ("type", "from_name", *sizes)
    expected = sorted(result, key=lambda region: list(dict.fromkeys(kind for kind, _ in shapes)).index(region["type"]))
    for region, original in zip(selected, expected, strict=True):
        assert {name: region[name] for name in names} == {name: original[name] for name in names}
        assert {name: region["value"][name] for name in original["value"]} == original["value"]


def test_items_without_an_id_get_one() -> None:
    result = [{"type": "brushlabels", "value": {}}, {"id": 3, "type": "x", "value": {}}, "text"]
    assert [item if item == "text" else item["id"] for item in select_annotation({"result": result})] == [
        "number 1",
        "3",
        "text",
    ]


def test_pages_are_counted_from_1() -> None:
    value = {"rle": [], "brushlabels": ["Car"]}
    regions = [{"type": "brushlabels", "value": value, "item_index": index} for index in (1, 0, 1)]
    result = [
        *regions,
        {"type": "brushlabels", "value": value},
        {"type": "choices", "value": {}, "item_index": 4},
        "text",
    ]
    assert pages(result) == [1, 2]
    assert items_of_page(result, 2) == [regions[0], regions[2]]
    assert items_of_page(result, 1) == [regions[1], result[3]]


def test_all_labels_of_a_region_are_kept() -> None:
    result = [
        {"id": "r1", "type": "brushlabels", "value": {"brushlabels": ["Car", "Red", "Finer"]}},
        {"id": "r1", "type": "labels", "value": {"labels": ["Old", "Car", 7]}},
        {"id": "r2", "type": "brush", "value": {"rle": []}},
        {"id": "r1", "type": "choices", "value": {"choices": ["x"]}},
    ]
    assert region_labels(result) == {"r1": ("Car", "Red", "Old"), "r2": ()}
