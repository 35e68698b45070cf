from pathlib import Path

import numpy as np
import pytest

from tests.builders.models import GatedModel, in_process_model
from tests.builders.processes import start_thread, wait_for
from tests.builders.scenes import png, quarters
from walkcut.errors import BusyError, ImageDecodeError
from walkcut.hierarchy.cut_tree import CutTree
from walkcut.images import Deadline
from walkcut.inference.queue import Priority
from walkcut.inference.tree_service import TreeService
from walkcut.storage import TreeCache
from walkcut.telemetry.metrics import Metrics

SOON = 0.05  # seconds until a deadline that always passes, however long the machine takes
ONE, OTHER = png(quarters(24, 32)), png(quarters(32, 24))


def test_a_late_tree_is_cached_for_the_next_request(tmp_path: Path) -> None:
    model = GatedModel()
    tree_service = TreeService(model, TreeCache(tmp_path, 1 << 20))
    with pytest.raises(BusyError, match="the request timed out"):
        tree_service.get_tree(ONE, None, Priority(deadline=Deadline(SOON)))
    model.gate.set()
    tree = tree_service.get_tree(ONE, None, Priority())
    assert tree.size == (24, 32)
    assert len(model.requests) == 1


def test_two_requests_for_one_tree_segment_once(tmp_path: Path) -> None:
    model, metrics, trees = GatedModel(), Metrics(), list[CutTree]()
    tree_service = TreeService(model, TreeCache(tmp_path, 1 << 20), metrics)
    callers = [start_thread(lambda: trees.append(tree_service.get_tree(ONE, None, Priority()))) for _ in range(2)]

    def waiting() -> float | None:
        return metrics.registry.get_sample_value("walkcut_waiting", {"caller": "others"})

    wait_for("the second", waiting, 30)
    model.gate.set()
    for caller in callers:
        caller.join(60)
    assert (len(trees), len(model.requests), waiting()) == (2, 1, 0)
    assert sources(metrics) == {"model": 1, "memory": 1}


def sources(metrics: Metrics) -> dict[str, float]:
    """Return the number of trees by source."""
    (counter,) = metrics.trees.collect()
    return {sample.labels["source"]: sample.value for sample in counter.samples if sample.name == "walkcut_trees_total"}


def test_trees_are_counted_by_their_source(tmp_path: Path) -> None:
    TreeService(in_process_model(), TreeCache(tmp_path, 1 << 20)).get_tree(ONE, None, Priority())
    metrics = Metrics()
    after_a_restart = TreeService(in_process_model(), TreeCache(tmp_path, 1 << 20), metrics)
    for request in (ONE, ONE, OTHER, ONE):
        after_a_restart.get_tree(request, None, Priority())
    assert sources(metrics) == {"file": 1, "memory": 2, "model": 1}


def test_a_failure_releases_the_model(tmp_path: Path) -> None:
    tree_service = TreeService(in_process_model(), TreeCache(tmp_path, 1 << 20))
    with pytest.raises(ImageDecodeError):
        tree_service.get_tree(b"no image", None, Priority())
    assert tree_service.get_tree(ONE, None, Priority()).size == (24, 32)


def test_an_infinite_deadline_works(tmp_path: Path) -> None:
    tree_service = TreeService(in_process_model(), TreeCache(tmp_path, 1 << 20))
    assert tree_service.get_tree(ONE, None, Priority(deadline=Deadline(float("inf")))).size == (24, 32)


def test_a_crop_has_its_own_tree(tmp_path: Path) -> None:
    tree_service = TreeService(in_process_model(), TreeCache(tmp_path, 1 << 20))
    part = tree_service.get_tree(ONE, (slice(0, 20), slice(4, 24)), Priority())
    assert part.size == (20, 20)
    assert tree_service.get_tree(ONE, None, Priority()).size == (24, 32)


def test_trees_that_fit_no_file_are_cached_in_memory(tmp_path: Path) -> None:
    model = GatedModel()
    model.gate.set()
    tree_service = TreeService(model, TreeCache(tmp_path, 0))
    first = tree_service.get_tree(ONE, None, Priority())
    assert np.array_equal(tree_service.get_tree(ONE, None, Priority()).leaves, first.leaves)
    assert len(model.requests) == 1


def test_stopping_finishes_the_running_image_and_refuses_others(tmp_path: Path) -> None:
    model, trees = GatedModel(unavailable_reason="being loaded"), list[CutTree]()
    tree_service = TreeService(model, TreeCache(tmp_path, 1 << 20))
    assert tree_service.unavailable_reason == "being loaded"
    caller = start_thread(lambda: trees.append(tree_service.get_tree(ONE, None, Priority())))
    wait_for("the model at work", lambda: model.requests, 30)
    tree_service.stop_accepting()
    assert tree_service.unavailable_reason == "shutting down"
    with pytest.raises(BusyError, match="shutting down"):
        tree_service.get_tree(OTHER, None, Priority())
    model.gate.set()
    caller.join(60)
    assert tree_service.get_tree(ONE, None, Priority()) is trees[0]
    tree_service.close()
    assert model.closed
