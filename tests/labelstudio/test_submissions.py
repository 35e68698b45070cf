from datetime import datetime, timezone

import pytest

from walkcut.errors import RequestError
from walkcut.labelstudio import parse_id, parse_ids, parse_timestamp, read_submission

ANNOTATION = {"id": 7, "updated_at": "2026-11-20T09:00:00+01:00", "result": [{}], "parent_prediction": 5}


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
    assert parse_ids(None) == frozenset()
    with pytest.raises(RequestError, match="documents must be a list, not dict"):
        parse_ids({"id": 1})


def test_times_are_read_as_utc() -> None:
    assert parse_timestamp("2026-11-20T08:38:56.976830Z") == datetime(2026, 11, 20, 8, 38, 56, 976830, timezone.utc)
    with pytest.raises(RequestError, match="'soon' is not a time: annotations need updated_at"):
        parse_timestamp("soon")
