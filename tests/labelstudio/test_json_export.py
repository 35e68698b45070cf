import json
from typing import Any

import pytest

from walkcut.errors import SettingsError
from walkcut.labelstudio.json_export import select_annotation


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
        ("text", None, None, "holds no annotation"),
    ],
)
def test_an_ambiguous_choice_is_refused_with_the_candidates(
    document: object, task_id: int | None, annotation_id: int | None, message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        select_annotation(document, task_id=task_id, annotation_id=annotation_id)
