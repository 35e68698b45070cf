import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from tests.builders.processes import wait_for
from tests.builders.scenes import png, quarters
from walkcut.backbones import load_extractor
from walkcut.errors import BusyError, ImageDecodeError
from walkcut.hierarchy.cut_tree import CutTree
from walkcut.images import Deadline, DecodeLimits
from walkcut.inference.tree_service import Grower, LocalModel, Picture, Turn, Turns
from walkcut.segmentation.presets import RECIPES
from walkcut.segmentation.segmenter import Segmenter
from walkcut.storage import TreeCache
from walkcut.telemetry.metrics import Metrics

PASSED = Turn(deadline=Deadline(0, lambda: 0.0))
SOON = 0.05  # seconds until a deadline that is waited for in vain, however long the machine takes
ONE, OTHER = png(quarters(24, 32)), png(quarters(32, 24))


def local_model() -> LocalModel:
    return LocalModel(Segmenter(load_extractor("embedded"), RECIPES["merge"]), DecodeLimits())


@dataclass
class Gated:
    """A model that waits for a sign, and remembers what it was asked."""

    inner: LocalModel = field(default_factory=local_model)
    gate: threading.Event = field(default_factory=threading.Event)
    asked: list[Picture] = field(default_factory=list)
    version: str = "v1"
    method: str = "merge"
    trouble: str = ""
    closed: bool = False

    def grow(self, picture: Picture) -> bytes:
        self.asked.append(picture)
        assert self.gate.wait(60)
        return self.inner.grow(picture)

    def close(self) -> None:
        self.closed = True
        self.gate.set()


def begun(act: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    return thread


def test_annotators_have_their_turn_before_others_who_came_first() -> None:
    turns, order, callers = Turns(), list[str](), list[threading.Thread]()
    turns.take(Turn())

    def wait(name: str) -> None:
        turns.take(Turn(urgent=name.startswith("annotator")))
        order.append(name)
        turns.give_back()

    for place, name in enumerate(("batch 1", "batch 2", "annotator 1", "annotator 2")):
        callers.append(begun(lambda name=name: wait(name)))  # type: ignore[misc]
        wait_for(name, lambda: turns.waiting(urgent=True) + turns.waiting(urgent=False) == place + 1, 30)  # noqa: B023
    assert (turns.waiting(urgent=True), turns.waiting(urgent=False)) == (2, 2)
    turns.give_back()
    for caller in callers:
        caller.join(30)
    assert order == ["annotator 1", "annotator 2", "batch 1", "batch 2"]


def test_who_has_no_time_left_leaves_the_queue() -> None:
    turns = Turns()
    turns.take(Turn())
    for turn in (PASSED, Turn(deadline=Deadline(SOON))):
        with pytest.raises(BusyError, match="no time left"):
            turns.take(turn)
    assert turns.waiting(urgent=False) == 0
    turns.give_back()
    turns.take(Turn())


def test_at_the_end_all_are_sent_away() -> None:
    turns, sent_away = Turns(), threading.Event()
    turns.take(Turn())

    def wait() -> None:
        with pytest.raises(BusyError, match="shutting down"):
            turns.take(Turn())
        sent_away.set()

    caller = begun(wait)
    wait_for("the caller", lambda: turns.waiting(urgent=False), 30)
    turns.close()
    assert sent_away.wait(30)
    with pytest.raises(BusyError, match="shutting down"):
        turns.take(Turn())
    caller.join(30)


def test_a_tree_that_is_late_is_kept_for_who_asks_next(tmp_path: Path) -> None:
    model = Gated()
    grower = Grower(model, TreeCache(tmp_path, 1 << 20))
    with pytest.raises(BusyError, match="no time left"):
        grower.tree(ONE, None, Turn(deadline=Deadline(SOON)))
    model.gate.set()
    tree = grower.tree(ONE, None, Turn())
    assert tree.size == (24, 32)
    assert len(model.asked) == 1


def test_two_who_ask_for_the_same_tree_have_it_grown_once(tmp_path: Path) -> None:
    model, metrics, found = Gated(), Metrics(), list[CutTree]()
    grower = Grower(model, TreeCache(tmp_path, 1 << 20), metrics)
    callers = [begun(lambda: found.append(grower.tree(ONE, None, Turn()))) for _ in range(2)]

    def waiting() -> float | None:
        return metrics.registry.get_sample_value("walkcut_waiting", {"who": "others"})

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
    Grower(local_model(), TreeCache(tmp_path, 1 << 20)).tree(ONE, None, Turn())
    metrics = Metrics()
    after_a_restart = Grower(local_model(), TreeCache(tmp_path, 1 << 20), metrics)
    for picture in (ONE, ONE, OTHER, ONE):
        after_a_restart.tree(picture, None, Turn())
    assert sources(metrics) == {"file": 1, "memory": 2, "grown": 1}


def test_a_failure_lets_the_next_one_have_its_turn(tmp_path: Path) -> None:
    grower = Grower(local_model(), TreeCache(tmp_path, 1 << 20))
    with pytest.raises(ImageDecodeError):
        grower.tree(b"no picture", None, Turn())
    assert grower.tree(ONE, None, Turn()).size == (24, 32)


def test_an_endless_deadline_is_one(tmp_path: Path) -> None:
    grower = Grower(local_model(), TreeCache(tmp_path, 1 << 20))
    assert grower.tree(ONE, None, Turn(deadline=Deadline(float("inf")))).size == (24, 32)


def test_a_place_has_a_tree_of_its_own(tmp_path: Path) -> None:
    grower = Grower(local_model(), TreeCache(tmp_path, 1 << 20))
    part = grower.tree(ONE, (slice(0, 20), slice(4, 24)), Turn())
    assert part.size == (20, 20)
    assert grower.tree(ONE, None, Turn()).size == (24, 32)


def test_trees_that_no_file_holds_are_in_memory(tmp_path: Path) -> None:
    model = Gated()
    model.gate.set()
    grower = Grower(model, TreeCache(tmp_path, 0))
    first = grower.tree(ONE, None, Turn())
    assert np.array_equal(grower.tree(ONE, None, Turn()).leaves, first.leaves)
    assert len(model.asked) == 1


def test_what_was_begun_is_ended_and_what_was_not_is_refused(tmp_path: Path) -> None:
    model, found = Gated(trouble="being loaded"), list[CutTree]()
    grower = Grower(model, TreeCache(tmp_path, 1 << 20))
    assert grower.trouble == "being loaded"
    caller = begun(lambda: found.append(grower.tree(ONE, None, Turn())))
    wait_for("the model at work", lambda: model.asked, 30)
    grower.refuse()
    assert grower.trouble == "shutting down"
    with pytest.raises(BusyError, match="shutting down"):
        grower.tree(OTHER, None, Turn())
    model.gate.set()
    caller.join(60)
    assert grower.tree(ONE, None, Turn()) is found[0]
    grower.close()
    assert model.closed
