import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from tests.builders.processes import wait_for
from tests.builders.scenes import png, quarters
from walkcut.backbones import load_backbone
from walkcut.errors import BusyError, ImageDecodeError
from walkcut.hierarchy.cut_tree import CutTree
from walkcut.images import Deadline, DecodeLimits
from walkcut.inference.model import ImageRequest, InProcessModel
from walkcut.inference.queue import Priority, PriorityLock
from walkcut.inference.tree_service import TreeService
from walkcut.segmentation.presets import PRESETS
from walkcut.segmentation.segmenter import Segmenter
from walkcut.storage import TreeCache
from walkcut.telemetry.metrics import Metrics

PASSED = Priority(deadline=Deadline(0, lambda: 0.0))
SOON = 0.05  # seconds until a deadline that is waited for in vain, however long the machine takes
ONE, OTHER = png(quarters(24, 32)), png(quarters(32, 24))


def in_process_model() -> InProcessModel:
    return InProcessModel(Segmenter(load_backbone("classical"), PRESETS["merge"]), DecodeLimits())


@dataclass
class Gated:
    """A model that waits for a sign, and remembers what it was asked."""

    inner: InProcessModel = field(default_factory=in_process_model)
    gate: threading.Event = field(default_factory=threading.Event)
    asked: list[ImageRequest] = field(default_factory=list)
    version: str = "v1"
    method: str = "merge"
    unavailable_reason: str = ""
    closed: bool = False

    def segment(self, request: ImageRequest) -> bytes:
        self.asked.append(request)
        assert self.gate.wait(60)
        return self.inner.segment(request)

    def close(self) -> None:
        self.closed = True
        self.gate.set()


def begun(act: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    return thread


def test_annotators_have_their_turn_before_others_who_came_first() -> None:
    turns, order, callers = PriorityLock(), list[str](), list[threading.Thread]()
    turns.acquire(Priority())

    def wait(name: str) -> None:
        turns.acquire(Priority(urgent=name.startswith("annotator")))
        order.append(name)
        turns.release()

    for crop, name in enumerate(("batch 1", "batch 2", "annotator 1", "annotator 2")):
        callers.append(begun(lambda name=name: wait(name)))  # type: ignore[misc]
        wait_for(name, lambda: turns.waiting(urgent=True) + turns.waiting(urgent=False) == crop + 1, 30)  # noqa: B023
    assert (turns.waiting(urgent=True), turns.waiting(urgent=False)) == (2, 2)
    turns.release()
    for caller in callers:
        caller.join(30)
    assert order == ["annotator 1", "annotator 2", "batch 1", "batch 2"]


def test_who_has_no_time_left_leaves_the_queue() -> None:
    turns = PriorityLock()
    turns.acquire(Priority())
    for priority in (PASSED, Priority(deadline=Deadline(SOON))):
        with pytest.raises(BusyError, match="no time left"):
            turns.acquire(priority)
    assert turns.waiting(urgent=False) == 0
    turns.release()
    turns.acquire(Priority())


def test_at_the_end_all_are_sent_away() -> None:
    turns, sent_away = PriorityLock(), threading.Event()
    turns.acquire(Priority())

    def wait() -> None:
        with pytest.raises(BusyError, match="shutting down"):
            turns.acquire(Priority())
        sent_away.set()

    caller = begun(wait)
    wait_for("the caller", lambda: turns.waiting(urgent=False), 30)
    turns.close()
    assert sent_away.wait(30)
    with pytest.raises(BusyError, match="shutting down"):
        turns.acquire(Priority())
    caller.join(30)


def test_a_tree_that_is_late_is_kept_for_who_asks_next(tmp_path: Path) -> None:
    model = Gated()
    tree_service = TreeService(model, TreeCache(tmp_path, 1 << 20))
    with pytest.raises(BusyError, match="no time left"):
        tree_service.get_tree(ONE, None, Priority(deadline=Deadline(SOON)))
    model.gate.set()
    tree = tree_service.get_tree(ONE, None, Priority())
    assert tree.size == (24, 32)
    assert len(model.asked) == 1


def test_two_who_ask_for_the_same_tree_have_it_grown_once(tmp_path: Path) -> None:
    model, metrics, found = Gated(), Metrics(), list[CutTree]()
    tree_service = TreeService(model, TreeCache(tmp_path, 1 << 20), metrics)
    callers = [begun(lambda: found.append(tree_service.get_tree(ONE, None, Priority()))) for _ in range(2)]

    def waiting() -> float | None:
        return metrics.registry.get_sample_value("walkcut_waiting", {"caller": "others"})

    wait_for("the second", waiting, 30)
    model.gate.set()
    for caller in callers:
        caller.join(60)
    assert (len(found), len(model.asked), waiting()) == (2, 1, 0)
    assert sources(metrics) == {"grown": 1, "memory": 1}


def sources(metrics: Metrics) -> dict[str, float]:
    """How many trees came from where."""
    (counter,) = metrics.trees.collect()
    return {each.labels["source"]: each.value for each in counter.samples if each.name == "walkcut_trees_total"}


def test_trees_are_counted_by_where_they_were_found(tmp_path: Path) -> None:
    TreeService(in_process_model(), TreeCache(tmp_path, 1 << 20)).get_tree(ONE, None, Priority())
    metrics = Metrics()
    after_a_restart = TreeService(in_process_model(), TreeCache(tmp_path, 1 << 20), metrics)
    for request in (ONE, ONE, OTHER, ONE):
        after_a_restart.get_tree(request, None, Priority())
    assert sources(metrics) == {"file": 1, "memory": 2, "grown": 1}


def test_a_failure_lets_the_next_one_have_its_turn(tmp_path: Path) -> None:
    tree_service = TreeService(in_process_model(), TreeCache(tmp_path, 1 << 20))
    with pytest.raises(ImageDecodeError):
        tree_service.get_tree(b"no image", None, Priority())
    assert tree_service.get_tree(ONE, None, Priority()).size == (24, 32)


def test_an_endless_deadline_is_one(tmp_path: Path) -> None:
    tree_service = TreeService(in_process_model(), TreeCache(tmp_path, 1 << 20))
    assert tree_service.get_tree(ONE, None, Priority(deadline=Deadline(float("inf")))).size == (24, 32)


def test_a_place_has_a_tree_of_its_own(tmp_path: Path) -> None:
    tree_service = TreeService(in_process_model(), TreeCache(tmp_path, 1 << 20))
    part = tree_service.get_tree(ONE, (slice(0, 20), slice(4, 24)), Priority())
    assert part.size == (20, 20)
    assert tree_service.get_tree(ONE, None, Priority()).size == (24, 32)


def test_trees_that_no_file_holds_are_in_memory(tmp_path: Path) -> None:
    model = Gated()
    model.gate.set()
    tree_service = TreeService(model, TreeCache(tmp_path, 0))
    first = tree_service.get_tree(ONE, None, Priority())
    assert np.array_equal(tree_service.get_tree(ONE, None, Priority()).leaves, first.leaves)
    assert len(model.asked) == 1


def test_what_was_begun_is_ended_and_what_was_not_is_refused(tmp_path: Path) -> None:
    model, found = Gated(unavailable_reason="being loaded"), list[CutTree]()
    tree_service = TreeService(model, TreeCache(tmp_path, 1 << 20))
    assert tree_service.unavailable_reason == "being loaded"
    caller = begun(lambda: found.append(tree_service.get_tree(ONE, None, Priority())))
    wait_for("the model at work", lambda: model.asked, 30)
    tree_service.stop_accepting()
    assert tree_service.unavailable_reason == "shutting down"
    with pytest.raises(BusyError, match="shutting down"):
        tree_service.get_tree(OTHER, None, Priority())
    model.gate.set()
    caller.join(60)
    assert tree_service.get_tree(ONE, None, Priority()) is found[0]
    tree_service.close()
    assert model.closed
