import json
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from tests.builders.ground_truth import save_labels
from tests.builders.scenes import quarter_labels, quarters
from walkcut import cli, load_segmenter
from walkcut.errors import SettingsError
from walkcut.evaluation.datasets import read_dataset
from walkcut.evaluation.simulated_annotator import (
    SimulatedAnnotation,
    interior_point,
    region_iou,
    score_simulated_annotator,
    simulated_annotations,
    summarise_annotations,
)
from walkcut.hierarchy.cut_tree import CutTree
from walkcut.hierarchy.granularity import Level, Segments
from walkcut.hierarchy.hierarchy import Hierarchy

# Three leaves, five rows high and 2, 4 and 6 columns wide; 1 and 2 join first.
LEAVES = np.repeat(np.array([[0] * 2 + [1] * 4 + [2] * 6], np.uint16), 5, axis=0)
TREE = CutTree(
    LEAVES,
    Hierarchy(np.array([[1, 2], [0, 3]]), np.array([0.9, 0.1]), np.array([False, True])),
    {Level.COARSE: 1, Level.MEDIUM: 2, Level.FINE: 2},
)


def test_each_click_corrects_the_largest_wrong_area() -> None:
    truth = LEAVES.astype(np.int64) + 1
    scores = score_simulated_annotator(TREE, truth)
    # All become region 3, then the right leaves 2 and 3, of which 2 lies next to leaf 0, then all is right.
    assert scores.iou_clicks == pytest.approx((1 / 6, (0 + 4 / 6 + 1) / 3, 1))
    assert (scores.regions, scores.iou_full_masks, scores.clicks_to_goal) == (3, 1, 3)


def test_coarser_segments_do_no_better_than_their_full_masks() -> None:
    truth = LEAVES.astype(np.int64) + 1
    scores = score_simulated_annotator(TREE, truth, Segments(2))
    # Leaves 1 and 2 are one segment, which goes to 3.
    assert scores.iou_full_masks == pytest.approx((1 + 0 + 0.6) / 3)
    assert scores.iou_clicks[0] == pytest.approx(1 / 6)
    # A click for 2 in a segment already clicked for 3 is a tie, which goes to 2; then only clicks for 1 are left.
    assert scores.iou_clicks[1:] == pytest.approx(((0 + 4 / 12 + 0) / 3, (1 + 4 / 10 + 0) / 3))


def test_the_most_interior_point_of_the_largest_part_is_clicked() -> None:
    area = np.zeros((9, 9), bool)
    area[0:5, 0:5] = area[:, 8] = True
    area[8, 0:6] = True
    assert interior_point(area) == (2, 2)


def test_missing_regions_count_as_0() -> None:
    truth = np.array([[1, 1, 2, 2, 3, 3]])
    assert region_iou(truth, np.array([[1, 1, 1, 1, 2, 0]])) == pytest.approx((2 / 4 + 0 + 0) / 3)
    assert region_iou(truth, truth) == 1


@given(arrays(np.int64, (5, 12), elements=st.integers(1, 4)))
def test_clicking_ends_and_scores_are_fractions(truth: np.ndarray) -> None:
    scores = score_simulated_annotator(TREE, truth)
    assert 1 <= len(scores.iou_clicks) <= 50
    assert all(0 <= score <= 1 for score in (scores.iou_full_masks, *scores.iou_clicks))


def test_summaries_average_annotations_and_count_unreached_goals() -> None:
    quick, never = SimulatedAnnotation(2, 1.0, (0.5, 0.9)), SimulatedAnnotation(4, 0.5, (0.1,) * 50)
    summary = summarise_annotations([{"leaves": [quick, never]}, {"leaves": [quick]}])["leaves"]
    assert summary["miou_clicks"] == pytest.approx({1: 1.1 / 3, 3: 1.9 / 3, 5: 1.9 / 3, 10: 1.9 / 3})
    assert (quick.clicks_to_goal, never.clicks_to_goal) == (2, None)
    assert (summary["annotations"], summary["unreached"], summary["clicks_median"]) == (3, 1, 2)
    assert summary["clicks_mean"] == pytest.approx(54 / 3)
    assert (summary["regions"], summary["miou_full_masks"]) == pytest.approx((8 / 3, 2.5 / 3))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    Image.fromarray(quarters(48, 64)).save(tmp_path / "images" / "a.png")
    halves = quarter_labels(48, 64) // 2
    for person, labels in enumerate((quarter_labels(48, 64), halves)):
        save_labels(tmp_path / "labels" / f"a.{person}.png", labels.astype(np.uint8))
    return tmp_path


def test_all_peoples_annotations_count(root: Path) -> None:
    (result,) = simulated_annotations(read_dataset("folder", root), load_segmenter("classical"))
    assert [score.regions for score in result["leaves"]] == [4, 2]
    assert all(score.iou_full_masks > 0.9 for score in result["leaves"])
    assert [score.clicks_to_goal for score in result["fine"]] == [4, 2]


def test_the_command_reports_feedback(root: Path) -> None:
    arguments = ["evaluate", "--dataset", "folder", "--root", str(root), "--feedback", "--json", str(root / "out.json")]
    result = CliRunner().invoke(cli.main, arguments)
    assert result.exit_code == 0, result.output
    leaves, fine, *_ = result.output.splitlines()
    assert re.match(r"feedback leaves  mean IoU (0\.9\d\d|1\.000) with full masks; 0\.\d{3} after 1, ", leaves)
    assert "; 80 % of full masks after 3.0 clicks" in leaves
    assert fine.startswith("feedback fine")
    found = json.loads((root / "out.json").read_text())["feedback"]
    assert (found["fine"]["clicks_mean"], found["leaves"]["annotations"]) == (3, 2)


def test_a_data_set_with_classes_is_refused(root: Path) -> None:
    (root / "labels" / "a.0.png").rename(root / "labels" / "a.png")
    (root / "classes.txt").write_text("one\ntwo\nthree\nfour\n")
    with pytest.raises(SettingsError, match="folder has classes: feedback is measured on data sets of partitions"):
        next(simulated_annotations(read_dataset("folder", root), load_segmenter("classical")))
