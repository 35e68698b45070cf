"""Interactive calls about large images hold few masks, and nothing of the images in the references of tasks."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.builders.label_config import make_image_tag, make_task_image
from tests.builders.memory import traced
from tests.builders.models import make_predictor
from walkcut.hierarchy.cut_tree import CutTree, build_tree
from walkcut.hierarchy.granularity import Level, Segments
from walkcut.hierarchy.hierarchy import Hierarchy
from walkcut.inference.project import Project, ProjectOptions
from walkcut.interactive.interactive_segmenter import InteractiveSegmenter
from walkcut.interactive.session import Screen, SessionStore
from walkcut.labelstudio.tasks import Task

IMAGE_TAG = make_image_tag("$image", ("A", "B"), status_field="status")
MEGABYTE = 1 << 20


def grid_tree() -> CutTree:
    """Return the tree of 3 megapixels in 5×8 segments that merge one after the other."""
    pixels = np.arange(40).reshape(5, 8).repeat(300, 0).repeat(250, 1)
    merges = np.array([[row + 39 if row else 0, row + 1] for row in range(39)])
    hierarchy = Hierarchy(merges, np.linspace(0.9, 0.1, 39), np.ones(39, bool))
    return build_tree(pixels, hierarchy, {Level.COARSE: 2, Level.MEDIUM: 20, Level.FINE: 40})


def typed(line: str) -> dict[str, Any]:
    return {"result": [{"type": "textarea", "from_name": "granularity", "value": {"text": [line]}}]}


def test_a_change_of_granularity_takes_the_memory_of_a_few_masks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree, predictor = grid_tree(), make_predictor(tmp_path)
    monkeypatch.setattr(predictor, "tree_for_interactive", lambda *_: tree)
    interactive, project = InteractiveSegmenter(predictor, SessionStore()), Project((IMAGE_TAG,), ProjectOptions())
    before = interactive.answer(Task(1, {"image": "a.png"}), project, typed("38"))
    assert sum(item["type"] == "brushlabels" for item in before.result) == 38
    draft = {"result": before.result, "updated_at": "2026-11-20T12:00:00Z"}
    task = Task(1, {"image": "a.png"}, drafts=[draft])
    held, peak = traced(lambda: interactive.answer(task, project, typed("40")))
    assert peak < 12 * tree.leaves.size, "the label map, its borders, and a few masks; not the masks of 78 regions"
    assert held < tree.leaves.size


def test_sessions_do_not_keep_the_images_in_references() -> None:
    sessions = SessionStore()

    def save_all() -> None:
        for number in range(64):
            image = make_task_image(IMAGE_TAG, {"image": f"data:image/png;base64,{number:0{MEGABYTE}}"}, number)
            sessions.save(image, Segments(4), [], Screen({}, frozenset()), {})

    held, _ = traced(save_all)
    assert held < MEGABYTE
