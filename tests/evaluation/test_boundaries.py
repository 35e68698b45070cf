import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.io import loadmat
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from tests.builders.bsds500 import ROOT, needs_photographs, photographs
from walkcut.errors import SegmentationError
from walkcut.evaluation.boundaries import (
    BoundaryCounts,
    boundaries,
    boundary_counts,
    boundary_ods_ois,
    matched_pixels,
)

HALVES = np.repeat([[0, 0, 0, 1, 1, 1]], 5, axis=0)
maps = hnp.arrays(bool, (6, 7), elements=st.booleans())


def line(column: int) -> np.ndarray:
    """A vertical line in an image of 400 × 300 pixels, whose matching distance is 3.75 pixels."""
    drawn = np.zeros((400, 300), bool)
    drawn[:, column] = True
    return drawn


def test_a_border_is_drawn_on_the_pixels_before_it() -> None:
    assert boundaries(HALVES).tolist() == [[False, False, True, False, False, False]] * 5
    assert boundaries(HALVES.T).tolist() == boundaries(HALVES).T.tolist()


def test_a_single_segment_has_no_boundary() -> None:
    assert not boundaries(np.full((4, 5), 3, np.uint8)).any()


def test_steps_are_thinned_to_one_pixel() -> None:
    staircase = np.tri(6, dtype=int)
    assert boundaries(staircase)[:4].tolist() == np.eye(4, 6, dtype=bool).tolist()


@needs_photographs
def test_boundaries_are_those_in_the_benchmarks_files() -> None:
    for photograph in photographs(3):
        truth = loadmat(ROOT / "groundTruth" / "val" / f"{photograph.stem}.mat")["groundTruth"][0, 0]
        assert (boundaries(truth["Segmentation"][0, 0]) == truth["Boundaries"][0, 0]).all()


@pytest.mark.parametrize(("column", "matched"), [(100, 400), (103, 400), (97, 400), (104, 0)])
def test_pixels_match_within_the_distance_only(column: int, matched: int) -> None:
    counts = boundary_counts(line(column), [line(100)])
    assert counts == BoundaryCounts(matched, 400, matched, 400)


def test_a_pixel_is_matched_once() -> None:
    double = line(100) | line(101)
    counts = boundary_counts(double, [line(100)])
    assert (counts.precision, counts.recall) == (0.5, 1)
    assert counts.f == pytest.approx(2 / 3)


def test_precision_asks_for_any_human_and_recall_for_all() -> None:
    counts = boundary_counts(line(50) | line(200) | line(280), [line(50) | line(200), line(50) | line(120)])
    assert counts == BoundaryCounts(machine_matched=800, machine=1200, human_matched=1200, human=1600)


def test_the_nearest_are_matched_first() -> None:
    machine, human = np.zeros((2, 1, 9), bool)
    machine[0, [2, 4]] = human[0, 4] = True
    assert matched_pixels(machine, human, 3.0).tolist() == [False, True]


def test_a_match_gives_way_where_more_can_be_matched() -> None:
    machine, human = np.zeros((2, 1, 9), bool)
    machine[0, [2, 3]] = human[0, [3, 5]] = True
    assert matched_pixels(machine, human, 2.0).tolist() == [True, True]


@given(maps, maps, st.sampled_from([0.4, 1.0, 1.5, 2.3]))
def test_as_many_pixels_match_as_can(machine: np.ndarray, human: np.ndarray, distance: float) -> None:
    near = cdist(np.argwhere(machine), np.argwhere(human)) <= distance
    most = near[linear_sum_assignment(near, maximize=True)].sum()
    matched = matched_pixels(machine, human, distance)
    assert matched.sum() == most == matched_pixels(human, machine, distance).sum()
    assert not (matched & ~near.any(axis=1)).any()


def test_the_same_boundary_is_perfect_and_none_is_too() -> None:
    same = boundary_counts(line(7), [line(7), line(7)])
    assert (same.precision, same.recall, same.f) == (1, 1, 1)
    none = boundary_counts(np.zeros((5, 5), bool), [np.zeros((5, 5), bool)])
    assert (none.precision, none.recall, none.f) == (1, 1, 1)


def test_a_missing_or_useless_boundary_scores_0() -> None:
    missing = boundary_counts(np.zeros((400, 300), bool), [line(7)])
    assert (missing.precision, missing.recall, missing.f) == (1, 0, 0)
    assert boundary_counts(line(7), [line(100)]).f == 0


def test_scales_add_up_counts_before_f() -> None:
    fine, coarse = BoundaryCounts(4, 10, 4, 5), BoundaryCounts(3, 3, 3, 5)
    other_fine, other_coarse = BoundaryCounts(9, 10, 9, 10), BoundaryCounts(1, 1, 1, 10)
    scales = boundary_ods_ois([[fine, coarse], [other_fine, other_coarse]])
    assert scales.granularity == 0
    assert scales.ods == pytest.approx(2 * (13 / 20) * (13 / 15) / (13 / 20 + 13 / 15))
    assert scales.ois == pytest.approx(2 * (12 / 13) * (12 / 15) / (12 / 13 + 12 / 15))


def test_boundaries_of_two_sizes_are_refused() -> None:
    with pytest.raises(SegmentationError, match=r"of \(400, 300\) does not fit a human's of \(5, 6\): scale"):
        boundary_counts(line(0), [boundaries(HALVES)])


def test_no_images_have_no_best_boundary() -> None:
    with pytest.raises(SegmentationError, match="no best of 0 images at 0 granularities"):
        boundary_ods_ois([])
