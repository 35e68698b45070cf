"""walkcut asks a real Label Studio for annotations and puts predictions into it."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.e2e.label_studio import Json, LabelStudio
from walkcut.errors import LabelStudioError
from walkcut.images import LabelStudioAccess
from walkcut.labelstudio.client import LabelStudioClient

pytestmark = pytest.mark.e2e


@pytest.fixture
def client(label_studio: LabelStudio, access_token: str) -> Iterator[LabelStudioClient]:
    with closing(LabelStudioClient(LabelStudioAccess(label_studio.url, access_token))) as client:
        yield client


def mask(number: int) -> Json:
    value = {"format": "rle", "rle": [number % 256, 1, 2], "brushlabels": ["Region"]}
    size = {"original_width": 4, "original_height": 3, "image_rotation": 0}
    return {**size, "id": f"m{number}", "type": "brushlabels", "from_name": "brush", "to_name": "image", "value": value}


def test_annotations_and_predictions_of_a_real_label_studio(
    label_studio: LabelStudio, client: LabelStudioClient, label_config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("walkcut.labelstudio.client._PAGE_SIZE", 2)
    number = label_studio.create_project("Studio", label_config.strip())
    project = str(number)
    assert client.label_config(project) == label_config.strip()
    tasks = label_studio.import_tasks(number, [{"image": f"s3://bucket/{n}.png"} for n in range(5)])
    client.add_predictions(
        project,
        [
            {"task": task, "model_version": f"{level}-1", "score": 0.5, "result": [mask(task)]}
            for task in tasks[:3]
            for level in ("fine", "auto")
        ],
    )
    taken, _ = label_studio.predictions(tasks[0])
    assert client.prediction_version(taken["id"]) == "fine-1"

    unannotated = list(client.unannotated_tasks(project))
    assert [task["data"]["image"] for task, _ in unannotated] == [f"s3://bucket/{n}.png" for n in range(5)]
    assert [versions for _, versions in unannotated] == [{"fine-1", "auto-1"}] * 3 + [set()] * 2

    first = label_studio.request(
        "POST", f"/api/tasks/{tasks[0]}/annotations/", json={"result": [mask(7)], "parent_prediction": taken["id"]}
    ).json()
    second = [label_studio.annotate(tasks[0], [mask(8)]), label_studio.annotate(tasks[4], [mask(9)])]
    found = {annotation["id"]: (task, annotation) for task, annotation in client.annotations(project)}
    assert found.keys() == {first["id"], *second}
    task, annotation = found[first["id"]]
    assert task == {"id": tasks[0], "data": {"image": "s3://bucket/0.png"}}
    assert {key: annotation[key] for key in first if key in annotation} == {
        key: first[key] for key in first if key in annotation
    }
    assert {"id", "task", "project", "result", "was_cancelled", "updated_at", "parent_prediction"} <= annotation.keys()
    assert [task["id"] for task, _ in client.unannotated_tasks(project)] == tasks[1:4]


def test_more_versions_than_label_studio_lists_are_known(
    label_studio: LabelStudio, client: LabelStudioClient, label_config: str
) -> None:
    number = label_studio.create_project("Versions", label_config)
    project = str(number)
    full, few, none = label_studio.import_tasks(number, [{"image": f"{n}.png"} for n in range(3)])
    versions = [f"auto {n:06x}" for n in range(50)]
    added = [(full, version) for version in versions] + [(few, version) for version in versions[:4]]
    client.add_predictions(
        project,
        [{"task": task, "model_version": version, "score": 0.5, "result": [mask(task)]} for task, version in added],
    )
    assert client.versions(project, [full, few]) == {full: set(versions), few: set(versions[:4])}
    first = min(client.predictions(few))
    for _ in range(2):
        client.delete_prediction(first)
    assert client.versions(project, [few, 999999]) == {few: set(versions[1:4])}

    assert [task["id"] for task, _ in client.tasks_neither_annotated_nor_skipped(project)] == [full, few, none]
    label_studio.request("POST", f"/api/tasks/{few}/annotations/", json={"result": [], "was_cancelled": True})
    assert [task["id"] for task, _ in client.unannotated_tasks(project)] == [full, few, none]
    assert [task["id"] for task, _ in client.tasks_neither_annotated_nor_skipped(project, [few, none])] == [none]


def test_tasks_annotated_while_they_are_read_hide_no_other(
    label_studio: LabelStudio, client: LabelStudioClient, label_config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("walkcut.labelstudio.client._PAGE_SIZE", 2)
    number = label_studio.create_project("Reading", label_config)
    tasks = label_studio.import_tasks(number, [{"image": f"{n}.png"} for n in range(5)])
    seen = []
    for task, _ in client.unannotated_tasks(str(number)):
        seen.append(task["id"])
        label_studio.annotate(task["id"], [])
    assert seen == tasks


def test_what_a_real_label_studio_refuses_is_named(
    label_studio: LabelStudio, client: LabelStudioClient, label_config: str, access_token: str
) -> None:
    project = str(label_studio.create_project("Refused", label_config))
    (task,) = label_studio.import_tasks(int(project), [{"image": "a.png"}])
    with pytest.raises(LabelStudioError, match=r"cannot read project 999: .* answered 404.*: check that it exists"):
        client.label_config("999")
    with pytest.raises(LabelStudioError, match=r"cannot read prediction 999999: .* answered 404.*: check that it"):
        client.prediction_version(999999)
    with pytest.raises(LabelStudioError, match=r"imported 0 of 1 predictions .*: check that they fit its labelling"):
        client.add_predictions(project, [{"task": task, "score": 1, "result": [{"from_name": "nobody"}]}])
    with pytest.raises(LabelStudioError, match=r"answered 400"):
        client.add_predictions(project, [{"task": 999999, "score": 1, "result": []}])
    for token in (access_token[:-3] + "abc", access_token.rpartition(".")[0], "0123456789" * 4):
        with (
            closing(LabelStudioClient(LabelStudioAccess(label_studio.url, token))) as stranger,
            pytest.raises(LabelStudioError, match=r"answered 401 .*, copied in full"),
        ):
            stranger.label_config(project)
