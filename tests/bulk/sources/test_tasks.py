from typing import Any

from tests.builders.bulk import IMAGE_TAG
from tests.builders.label_config import make_image_tag
from walkcut.bulk.items import Item, ItemFailure, Skipped
from walkcut.bulk.sources.tasks import PREDICTED, project_items


def test_tasks_that_lack_a_version_are_listed() -> None:
    tasks: list[tuple[dict[str, Any], frozenset[str]]] = [
        ({"id": 1, "data": {"image": "/1.jpg"}}, frozenset({"v", "w"})),
        ({"id": 2, "data": {"image": "/2.jpg"}}, frozenset({"w"})),
        ({"id": 3, "data": {"text": "?"}}, frozenset()),
    ]
    skipped, item, failure = project_items(tasks, [IMAGE_TAG], "v")
    assert skipped == Skipped("task 1", PREDICTED, "task-1")
    assert item == Item("task-2", "/2.jpg", {"image": "/2.jpg"}, 2)
    assert isinstance(failure, ItemFailure)
    assert "task 3 has no image" in failure.reason


def test_a_task_has_an_item_or_a_failure_for_each_image() -> None:
    image_tags = [IMAGE_TAG, make_image_tag("$back", name="back")]
    tasks: list[tuple[dict[str, Any], frozenset[str]]] = [
        ({"id": 2, "data": {"image": "/2.jpg", "back": "/3.jpg"}}, frozenset()),
        ({"id": 4, "data": {"image": "/4.jpg"}}, frozenset()),
    ]
    first, second, third, failure = project_items(tasks, image_tags, "v")
    assert first == Item("task-2-1", "/2.jpg", tasks[0][0]["data"], 2, 0)
    assert second == Item("task-2-2", "/3.jpg", tasks[0][0]["data"], 2, 1)
    assert third == Item("task-4-1", "/4.jpg", tasks[1][0]["data"], 4, 0)
    assert isinstance(failure, ItemFailure)
    assert (failure.key, failure.reference) == ("task-4-2", "task 4")
