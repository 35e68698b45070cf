from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace

import numpy as np
import pytest

from tests.builders.label_config import make_image_tag
from walkcut.hierarchy.cut_tree import build_tree
from walkcut.hierarchy.granularity import Segments
from walkcut.hierarchy.hierarchy import Hierarchy
from walkcut.interactive.session import Screen, SessionStore
from walkcut.labelstudio.predictions import Region, region_id, region_items
from walkcut.labelstudio.prompts import Point
from walkcut.labelstudio.tasks import Task, TaskImage

IMAGE_TAG = make_image_tag("$image", ("A",), labels=("A", "Car"))
MERGES = np.array([[0, 1], [2, 3], [4, 5]])
TREE = build_tree(np.arange(4).reshape(1, 4), Hierarchy(MERGES, np.ones(3), np.zeros(3, bool)), {})
NOTHING = Screen({}, frozenset())
POINT = Point("p1", "Select", 0.5, 0.5)


def region(name: str, pixels: str = "##..", label: str = "A") -> Region:
    return Region(np.array([[pixel == "#" for pixel in pixels]]), label, id=name)


def document(*regions: Region, **fields: object) -> dict[str, object]:
    return {"result": region_items(regions, task()), **fields}


def task(number: int = 1, /, **documents: Sequence[dict[str, object]]) -> TaskImage:
    return TaskImage(Task(number, {"image": "a.jpg"}, **documents), IMAGE_TAG)


SEEN = document(region("seen"), id=1, updated_at="2026-11-20T12:00:00Z")


class Session:
    """A store of sessions at a time that is set by hand, in which one interaction replaced a region by another."""

    def __init__(self) -> None:
        self.now = 0.0
        self.store = SessionStore(lambda: self.now)
        before, after = {"old": region("old")}, {"new": region("new", ".#.#")}
        self.store.save(task(drafts=[SEEN]), Segments(4), [POINT], Screen(before, frozenset()), after)

    def ids(self, of: TaskImage, *prompts: Point) -> list[str]:
        return [*self.store.screen(of, TREE, prompts).regions]


@pytest.fixture
def session() -> Session:
    return Session()


def test_regions_are_restored_with_all_that_is_known_of_them(session: Session) -> None:
    drawn = replace(region("new", ".#.#", "Car"), score=0.5, notes=("a",), modified=True)
    session.store.save(task(), Segments(4), [], NOTHING, {"new": drawn})
    (restored,) = session.store.screen(task(), TREE).regions.values()
    for field in fields(Region):
        assert np.array_equal(getattr(restored, field.name), getattr(drawn, field.name))
    assert session.store.granularity(task()) == Segments(4)


def test_prompts_that_are_sent_again_refer_to_the_regions_before(session: Session) -> None:
    assert session.ids(task(drafts=[SEEN]), POINT, Point("p2", "Select", 0, 0)) == ["old"]
    assert session.ids(task(drafts=[SEEN]), Point("p2", "Select", 0, 0)) == ["new"]


@pytest.mark.parametrize("updated_at", ["2026-11-20T11:59:00Z", "2026-11-20T12:00:01Z", "2036-01-01T00:00:00Z", None])
def test_another_draft_than_the_one_seen_ends_the_interaction_whatever_its_time(
    session: Session, updated_at: object
) -> None:
    assert session.ids(task(drafts=[SEEN])) == ["new"]
    assert session.ids(task(drafts=[document(region("draft"), id=1, updated_at=updated_at)])) == ["draft"]
    assert session.ids(task(drafts=[document(region("draft"), id=2, updated_at=SEEN["updated_at"])])) == ["draft"]


def test_submitting_ends_the_interaction(session: Session) -> None:
    assert session.ids(task(annotations=[document(region("submitted"), id=1)])) == ["submitted"]


def drafted(user: str) -> TaskImage:
    """Return a task as Label Studio sends it for one of two annotators, whose drafts are alike."""
    return task(drafts=[{**SEEN, "user": user}])


def test_annotators_of_one_task_do_not_see_each_other(session: Session) -> None:
    nothing, other = Screen({}, frozenset()), Point("p9", "Select", 0, 0)
    session.store.save(drafted("ada"), Segments(7), [], nothing, {"hers": region("hers")})
    session.store.save(drafted("bob"), Segments(2), [other], nothing, {"his": region("his")})
    assert session.ids(drafted("ada")) == ["hers"]
    assert session.ids(drafted("bob")) == ["his"]
    assert session.ids(drafted("cyd")) == ["seen"]
    granularities = [session.store.granularity(drafted(user)) for user in ("ada", "bob", "cyd")]
    assert granularities == [Segments(7), Segments(2), None]


def test_prompts_tell_annotators_apart_that_have_no_draft(session: Session) -> None:
    hers, his = Point("p7", "Select", 0, 0), Point("p8", "Select", 0, 0)
    session.store.save(task(), Segments(7), [hers], Screen({"a": region("a")}, frozenset()), {})
    session.store.save(task(), Segments(2), [his], Screen({"b": region("b")}, frozenset()), {})
    assert session.ids(task(), hers, Point("p9", "Select", 0, 0)) == ["a"]
    assert session.store.granularity(task(), [hers]) == Segments(7)


def test_an_image_keeps_the_interactions_of_a_few_annotators(session: Session) -> None:
    for index in range(6):
        prompts = [Point(f"q{index}", "Select", 0, 0)]
        session.store.save(task(), Segments(index + 1), prompts, Screen({}, frozenset()), {})
    granularities = [session.store.granularity(task(), [Point(f"q{index}", "Select", 0, 0)]) for index in range(1, 6)]
    assert granularities == [Segments(6), *map(Segments, range(3, 7))]


def test_15_seconds_end_the_interaction(session: Session) -> None:
    session.now += 14.9
    assert session.ids(task(drafts=[SEEN])) == ["new"]
    session.now += 0.1
    assert session.ids(task(drafts=[SEEN])) == ["seen"]


def test_regions_that_the_last_suggestions_change_are_uncertain_until_a_draft_is_saved(session: Session) -> None:
    assert session.store.screen(task(drafts=[SEEN]), TREE).uncertain == {"old", "new"}
    repeated = session.store.screen(task(drafts=[SEEN]), TREE, [POINT])
    assert repeated.uncertain == frozenset(), "they take the place of the last suggestions"
    saved = document(region("saved"), id=1, updated_at="2026-11-20T12:00:01Z")
    assert session.store.screen(task(drafts=[saved]), TREE).uncertain == frozenset()


def test_the_granularity_of_an_interaction_is_followed_as_long_as_its_regions(session: Session) -> None:
    assert session.store.granularity(task(drafts=[SEEN])) == Segments(4)
    assert session.store.granularity(task()) is None, "somebody else's, who has no draft"
    assert session.store.granularity(task(), [POINT]) == Segments(4)


def test_other_images_have_sessions_of_their_own(session: Session) -> None:
    assert session.ids(task(2)) == []
    assert session.store.granularity(task(2)) is None


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["drafts", "annotations", "predictions"], "drafts"),
        (["annotations", "predictions"], "annotations"),
        (["predictions"], "predictions"),
    ],
)
def test_the_draft_precedes_annotations_and_the_last_prediction(names: list[str], expected: str) -> None:
    documents = {name: [document(region("earlier")), document(region(name))] for name in names}
    assert [*SessionStore().screen(task(**documents), TREE).regions] == [expected]


def test_ids_of_walkcut_in_any_document_may_be_on_the_screen(session: Session) -> None:
    first, second, third = (region(region_id(task(), source)) for source in "abc")
    of = task(drafts=[document(first), document()], annotations=[document(second)], predictions=[document(third)])
    predictions = [*of.task.predictions, document(region("foreign"))]
    foreign = replace(of, task=replace(of.task, predictions=predictions))
    assert SessionStore().screen(foreign, TREE).ids == {first.id, second.id, third.id}
    assert session.store.screen(foreign, TREE).ids == {first.id, second.id, third.id, "old", "new"}


def test_regions_of_a_prediction_are_unmodified_whoever_made_it() -> None:
    unknown = {key: value for key, value in region_items([region("r")], task())[0].items() if key != "origin"}
    (predicted,) = SessionStore().screen(task(predictions=[{"result": [unknown]}]), TREE).regions.values()
    (drawn,) = SessionStore().screen(task(drafts=[{"result": [unknown]}]), TREE).regions.values()
    assert (predicted.modified, drawn.modified) == (False, True)


def test_threads_may_save_and_read_at_once() -> None:
    store = SessionStore()

    def save_and_read(number: int) -> bool:
        store.save(task(number), Segments(number % 7 + 1), [], NOTHING, {})
        return store.granularity(task(number)) in {None, Segments(number % 7 + 1)}

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(save_and_read, range(1000)))


@pytest.mark.parametrize(("moved", "is_exact"), [(0, True), (4, False)])
def test_regions_of_a_draft_have_the_masks_that_their_polygons_were_made_from(moved: int, is_exact: bool) -> None:
    tag = make_image_tag("$image", ("A",), shape="polygon")
    y, x = np.mgrid[:40, :60]
    left = x < 30 + 6 * np.sin(y / 5)
    regions = {name: Region(mask, "A", id=name) for name, mask in (("left", left), ("right", ~left))}
    tree = build_tree(left.astype(np.int64), Hierarchy(MERGES[:1], np.ones(1), np.zeros(1, bool)), {})
    result = region_items([*regions.values()], TaskImage(Task(1, {"image": "a.jpg"}), tag))
    result[0]["value"]["points"] = [[px + moved / 60 * 100, py] for px, py in result[0]["value"]["points"]]
    saved = Task(1, {"image": "a.jpg"}, drafts=[{"result": result, "id": 1, "updated_at": "1", "user": 7}])
    store = SessionStore()
    store.save(TaskImage(Task(1, {"image": "a.jpg"}), tag), Segments(2), [], NOTHING, regions)
    screen = store.screen(TaskImage(saved, tag), tree).regions
    assert np.array_equal(screen["left"].mask, left) is is_exact
    assert np.array_equal(screen["right"].mask, ~left)
    assert not np.array_equal(SessionStore().screen(TaskImage(saved, tag), tree).regions["right"].mask, ~left)
