import pytest

from walkcut.errors import RequestError
from walkcut.labelstudio import BrushControl, Task, read_extra_params, read_tasks

CONTROL = BrushControl("brush", "image", "photo", ("Region",))


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
        Task(7, {"photo": value}).image_reference(CONTROL)


@pytest.mark.parametrize(
    ("value", "params"),
    [('{"granularity": "fine"}', {"granularity": "fine"}), ({"a": 1}, {"a": 1}), (None, {}), ("", {}), ("[1]", {}),
     ("not json", {}), ([1], {}), (7, {})],
)  # fmt: skip
def test_extra_parameters_are_an_object_or_its_json_or_else_empty(value: object, params: object) -> None:
    assert read_extra_params(value) == params
