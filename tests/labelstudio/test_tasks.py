from datetime import datetime, timezone

import pytest

from tests.builders.label_config import make_image_tag, make_task_image
from walkcut.errors import RequestError
from walkcut.labelstudio.tasks import (
    Task,
    parse_id,
    parse_ids,
    parse_project_created,
    parse_project_id,
    parse_timestamp,
    read_extra_params,
    read_submission,
    read_task,
    read_tasks,
)

IMAGE_TAG = make_image_tag("$photo", ("Region",))
ANNOTATION = {"id": 7, "updated_at": "2026-11-20T09:00:00+01:00", "result": [{}], "parent_prediction": 5}
ODD: list[object] = [None, {}, "", "x", "4x", "-4", "4\n", [4], True, "9" * 30]


def test_tasks_keep_their_order_and_malformed_ones_are_empty() -> None:
    tasks = read_tasks({"tasks": [{"id": 3, "data": {"a": 1}, "extra": 0}, None, {"id": "x", "data": []}]})
    assert tasks == [Task(3, {"a": 1}), Task(0, {}), Task(0, {})]


@pytest.mark.parametrize("body", [{}, {"tasks": None}, {"tasks": {"id": 1}}])
def test_a_request_without_tasks_is_refused(body: dict[str, object]) -> None:
    with pytest.raises(RequestError, match='needs "tasks"'):
        read_tasks(body)


@pytest.mark.parametrize("value", [None, "", "  ", 3, ["a.jpg", "b.jpg"], {"a": 1}])
def test_a_task_without_an_image_is_refused_with_the_remedy(value: object) -> None:
    with pytest.raises(RequestError, match=r"task 7 has no image: data\.photo is .*; set it to the address of one"):
        assert make_task_image(IMAGE_TAG, {"photo": value}, 7).reference


@pytest.mark.parametrize("page", [None, 7, ["b.jpg"], ""])
def test_a_page_without_an_image_is_named_by_its_index(page: object) -> None:
    image_tag = make_image_tag("$photo", is_list=True)
    second = Task(7, {"photo": ["a.jpg", page]}).images([image_tag])[1]
    with pytest.raises(RequestError, match=r"has no image: data\.photo\[1\] is .*; set it to the address of one image"):
        assert second.reference


@pytest.mark.parametrize("value", ["$a" * 10_000, "$" + "a" * 100_000, "$x" + "[0]" * 10_000])
def test_the_reason_is_short_however_long_the_config_is(value: str) -> None:
    with pytest.raises(RequestError, match=r"task 7 has no image: data\..* is missing") as caught:
        assert make_task_image(make_image_tag(value), {}, 7).reference
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("value", "params"),
    [('{"granularity": "fine"}', {"granularity": "fine"}), ({"a": 1}, {"a": 1}), (None, {}), ("", {}), ("null", {})],
)  # fmt: skip
def test_extra_parameters_are_an_object_or_its_json_or_nothing(value: object, params: object) -> None:
    assert read_extra_params(value) == params


@pytest.mark.parametrize("value", ["[1]", "not json", [1], 7, '{"a": 1', " ", "[" * 100_000])
def test_other_extra_parameters_are_refused_with_an_example(value: object) -> None:
    with pytest.raises(RequestError, match=r"the extra parameters are .*: write an object, such as"):
        read_extra_params(value)


def test_a_submission_holds_its_task_and_the_time_in_utc() -> None:
    submission = read_submission({"id": 3, "data": {"image": "a"}}, ANNOTATION | {"was_cancelled": True})
    assert (submission.task.id, submission.task.data) == (3, {"image": "a"})
    assert (submission.annotation_id, submission.updated_at) == (7, "2026-11-20T08:00:00+00:00")
    assert (submission.result, submission.parent_prediction, submission.skipped) == ([{}], 5, True)


@pytest.mark.parametrize(("task", "annotation"), [(None, ANNOTATION), ({"id": 3}, None), ({"id": 3}, 7)])
def test_an_event_without_documents_is_refused_with_the_remedy(task: object, annotation: object) -> None:
    with pytest.raises(RequestError, match="needs the documents of a task and of an annotation: switch on"):
        read_submission(task, annotation)


@pytest.mark.parametrize("identity", [None, "3", True, -1, 1 << 63, 1.0])
def test_an_id_is_a_number_that_a_database_holds(identity: object) -> None:
    with pytest.raises(RequestError, match="a document needs a number as its id"):
        parse_id({"id": identity})


def test_ids_of_documents() -> None:
    assert parse_ids([{"id": 1}, {"id": 2}]) == {1, 2}
    for other in (None, {"id": 1}, "1"):
        with pytest.raises(RequestError, match=r"a deletion needs the list of what was deleted: it has \w"):
            parse_ids(other)


@pytest.mark.parametrize("result", [None, {}, "text", 7])
def test_an_annotation_without_a_list_of_results_is_refused(result: object) -> None:
    with pytest.raises(RequestError, match=r"the result of an annotation is .*: send a list"):
        read_submission({"id": 3}, ANNOTATION | {"result": result})


@pytest.mark.parametrize("identity", [-1, 1 << 63, 10**4000, "7", None])
def test_a_task_whose_id_no_database_holds_has_none(identity: object) -> None:
    assert read_task({"id": identity}).id == 0


def test_a_time_of_creation_that_is_none_is_named() -> None:
    with pytest.raises(RequestError, match="created_at is a list that is not a time"):
        parse_project_created({"id": 3, "created_at": [1]})


def test_times_are_read_as_utc() -> None:
    assert parse_timestamp("2026-11-20T08:38:56.976830Z") == datetime(2026, 11, 20, 8, 38, 56, 976830, timezone.utc)
    with pytest.raises(RequestError, match="updated_at is text that is not a time"):
        parse_timestamp("soon")


@pytest.mark.parametrize(
    ("sent", "project_id"),
    [
        (4, "4"),
        ("4", "4"),
        ("4.1795164114", "4"),
        ("007.5", "7"),
        ({"id": 4, "title": "5"}, "4"),
        *[(odd, "") for odd in ODD],
    ],
)
def test_a_project_has_one_id_however_it_is_sent(sent: object, project_id: str) -> None:
    assert parse_project_id(sent) == project_id
