from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone

import numpy as np
import pytest

from walkcut.hierarchy.granularity import Segments
from walkcut.interactive.session import SessionStore, regions_by_id, unmodified_region_ids
from walkcut.labelstudio.config import BrushControl
from walkcut.labelstudio.predictions import Region, brush_region
from walkcut.labelstudio.prompts import Point
from walkcut.labelstudio.tasks import Task

CONTROL = BrushControl("brush", "image", "image", ("A",), labels=("A", "Car"))
SIZE = (1, 4)
NOON = datetime(2026, 11, 20, 12, tzinfo=timezone.utc)
POINT = Point("p1", "Select", 0.5, 0.5)


def region(name: str, pixels: str = "##..", label: str = "A") -> Region:
    return Region(np.array([[pixel == "#" for pixel in pixels]]), label, id=name)


def document(*regions: Region, **fields: object) -> dict[str, object]:
    return {"result": [brush_region(region, CONTROL, region.id) for region in regions], **fields}


def task(number: int = 1, /, **documents: Sequence[dict[str, object]]) -> Task:
    return Task(number, {"image": "a.jpg"}, **documents)


class Session:
    """A store of sessions at a time that is set by hand, in which one interaction replaced a region by another."""

    def __init__(self) -> None:
        self.now = NOON
        self.store = SessionStore(lambda: self.now)
        self.store.save(task(), CONTROL, Segments(4), [POINT], {"old": region("old")}, {"new": region("new", ".#.#")})

    def ids(self, of: Task, *prompts: Point) -> list[str]:
        return [*self.store.regions(of, CONTROL, SIZE, prompts, "v2")]


@pytest.fixture
def session() -> Session:
    return Session()


def test_regions_are_restored_with_mask_and_label(session: Session) -> None:
    (restored,) = session.store.regions(task(), CONTROL, SIZE, [], "v").values()
    assert (restored.id, restored.label, restored.mask.tolist()) == ("new", "A", [[False, True, False, True]])
    assert session.store.granularity(task(), CONTROL) == Segments(4)


def test_prompts_that_are_sent_again_refer_to_the_regions_before(session: Session) -> None:
    assert session.ids(task(), POINT, Point("p2", "Select", 0, 0)) == ["old"]
    assert session.ids(task(), Point("p2", "Select", 0, 0)) == ["new"]


def test_a_later_draft_or_15_seconds_end_the_interaction(session: Session) -> None:
    draft = document(region("draft"), updated_at=(NOON + timedelta(seconds=1)).isoformat())
    assert session.ids(task(drafts=[draft])) == ["draft"]
    assert session.ids(task(drafts=[{**draft, "updated_at": "unknown"}])) == ["new"]
    session.now += timedelta(seconds=15)
    assert session.ids(task()) == []


def test_other_images_have_sessions_of_their_own(session: Session) -> None:
    assert session.ids(task(2)) == []
    assert session.store.granularity(task(2), CONTROL) is None


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["drafts", "annotations", "predictions"], "drafts"),
        (["annotations", "predictions"], "annotations"),
        (["predictions"], "predictions"),
    ],
)
def test_the_draft_precedes_annotations_and_predictions(names: list[str], expected: str) -> None:
    documents = {name: [document(region("earlier")), document(region(name))] for name in names}
    assert [*SessionStore().regions(task(**documents), CONTROL, SIZE, [], "v")] == [expected]


def test_the_prediction_of_the_current_version_precedes_others() -> None:
    predictions = [document(region(version), model_version=version) for version in ("v1", "v2", "v3")]
    store = SessionStore()
    assert [*store.regions(task(predictions=predictions), CONTROL, SIZE, [], "v2")] == ["v2"]
    assert [*store.regions(task(predictions=predictions), CONTROL, SIZE, [], "v4")] == ["v3"]


def test_unmodified_regions_are_predictions_with_a_generic_label() -> None:
    draft = document(region("kept"), region("named", label="Car"), region("painted"))
    result = draft["result"]
    assert isinstance(result, list)
    result[2]["origin"] = "prediction-changed"
    assert unmodified_region_ids(task(drafts=[draft]), CONTROL) == ["kept"]
    assert [*regions_by_id(draft, CONTROL, SIZE)] == ["kept", "named", "painted"]
    assert unmodified_region_ids(task(), CONTROL) == []


def test_threads_may_save_and_read_at_once() -> None:
    store = SessionStore()

    def save_and_read(number: int) -> bool:
        store.save(task(number), CONTROL, Segments(number % 7 + 1), [], {}, {})
        return store.granularity(task(number), CONTROL) in {None, Segments(number % 7 + 1)}

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(save_and_read, range(1000)))
