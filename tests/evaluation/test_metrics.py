import math
from collections.abc import Callable
from itertools import combinations, permutations
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage import metrics as reference

from walkcut.errors import SegmentationError
from walkcut.evaluation.metrics import (
    Counts,
    background_groups,
    coarsened,
    contingency_table,
    covering,
    matched_counts,
    matched_segments,
    merge_background,
    ods_ois,
    oracle_merged,
    primary_classes,
    rand_index,
    variation_of_information,
)

SCORES: list[Callable[[np.ndarray], float]] = [covering, rand_index, variation_of_information]
MATCHED: list[Callable[[Counts], float]] = [lambda c: c.accuracy, lambda c: c.f1, lambda c: c.mean_iou]

# Classes 0 and 2 of three; segment 1 is best for class 0, segment 0 for class 2, segment 2 is one too many.
TABLE = np.array([[1, 6, 3], [0, 0, 0], [4, 2, 0]])

# Background, two classes in the image and one that is not; segments 2 and 4 lie on class 1, segment 1 is empty.
WITH_BACKGROUND = np.array([[5, 0, 1, 8, 0, 0], [0, 0, 9, 1, 4, 0], [2, 0, 0, 0, 0, 7], [0, 0, 0, 0, 0, 0]])

TRUTH = np.array([[0, 0, 2], [0, 2, 255]])
SEGMENTS = np.array([[1, 1, 1], [0, 0, 3]], np.uint16)

tables = hnp.arrays(np.int64, st.tuples(st.integers(1, 5), st.integers(1, 7)), elements=st.integers(0, 9))
images = hnp.arrays(np.int64, (3, 4), elements=st.integers(0, 5))


def scores(table: np.ndarray) -> list[float]:
    counts = matched_counts(table)
    return [score(table) for score in SCORES] + [score(counts) for score in MATCHED]


def test_entries_count_shared_pixels() -> None:
    table = contingency_table(TRUTH, SEGMENTS, ignore=255)
    assert table.tolist() == [[1, 2, 0, 0], [0, 0, 0, 0], [1, 1, 0, 0]]


def test_classes_without_pixels_have_their_rows() -> None:
    table = contingency_table(TRUTH, SEGMENTS, classes=5, ignore=255)
    assert table.shape == (5, 4)
    assert table.sum(axis=1).tolist() == [3, 0, 2, 0, 0]


def test_void_may_be_negative() -> None:
    assert contingency_table(np.array([[-1, 0]]), np.array([[0, 1]]), ignore=-1).tolist() == [[0, 1]]


def test_nothing_to_score_is_one_empty_row() -> None:
    assert contingency_table(np.full((2, 2), 9), np.arange(4).reshape(2, 2), ignore=9).tolist() == [[0, 0, 0, 0]]
    assert contingency_table(np.zeros((0, 3), int), np.zeros((0, 3), int)).tolist() == [[0]]


@given(images, images)
def test_the_table_is_what_counting_gives(truth: np.ndarray, segments: np.ndarray) -> None:
    slow = np.zeros((truth.max() + 1, segments.max() + 1), int)
    for pair in zip(truth.flat, segments.flat, strict=True):
        slow[pair] += 1
    assert contingency_table(truth, segments).tolist() == slow.tolist()


@given(images, images, hnp.arrays(np.int64, 6, elements=st.integers(0, 7)))
def test_a_coarser_table_is_that_of_coarser_segments(
    truth: np.ndarray, segments: np.ndarray, groups: np.ndarray
) -> None:
    table = contingency_table(truth, segments)
    groups = groups[: table.shape[1]]
    coarser = contingency_table(truth, groups[segments])
    assert coarsened(table, groups)[:, : coarser.shape[1]].tolist() == coarser.tolist()
    assert coarsened(table, groups).sum() == truth.size


def test_images_of_two_sizes_are_refused() -> None:
    with pytest.raises(SegmentationError, match=r"segments of \(2, 2\) do not fit a truth of \(2, 3\): scale"):
        contingency_table(TRUTH, np.zeros((2, 2), int))


@pytest.mark.parametrize(("truth", "segments", "whose"), [(-1, 0, "truth"), (0, -1, "segments")])
def test_negative_labels_are_refused(truth: int, segments: int, whose: str) -> None:
    with pytest.raises(SegmentationError, match=f"label -1 in the {whose}: labels start at 0"):
        contingency_table(np.full((1, 1), truth), np.full((1, 1), segments))


def test_labels_beyond_the_classes_are_refused() -> None:
    with pytest.raises(SegmentationError, match="label 255 is beyond 27 classes: map it to one, or ignore it"):
        contingency_table(TRUTH, SEGMENTS, classes=27)
    with pytest.raises(SegmentationError, match="label 2 is beyond 2 classes"):
        contingency_table(TRUTH, SEGMENTS, classes=2, ignore=255)


def test_an_extra_segment_falls_to_the_absent_class() -> None:
    assert matched_segments(TABLE).tolist() == [1, 2, 0]
    counts = matched_counts(TABLE)
    assert (counts.tp.tolist(), counts.fp.tolist(), counts.fn.tolist()) == ([6, 0, 4], [2, 3, 1], [4, 0, 2])
    assert counts.accuracy == 10 / 16
    assert counts.f1 == pytest.approx((12 / 18 + 8 / 11) / 2)
    assert counts.mean_iou == pytest.approx((6 / 12 + 0 / 3 + 4 / 7) / 3)


def test_segments_beyond_the_classes_are_nobodys_false_positives() -> None:
    counts = matched_counts(np.array([[5, 3, 2]]))
    assert (counts.tp.tolist(), counts.fp.tolist(), counts.fn.tolist()) == ([5], [0], [5])


def test_classes_beyond_the_segments_are_missed() -> None:
    table = np.array([[1], [3], [0]])
    assert matched_segments(table)[1] == 0
    counts = matched_counts(table)
    assert (counts.tp.tolist(), counts.fp.tolist(), counts.fn.tolist()) == ([0, 3, 0], [0, 1, 0], [1, 0, 0])
    assert counts.f1 == pytest.approx((0 + 6 / 7) / 2)
    assert counts.mean_iou == pytest.approx((0 + 3 / 4) / 2)


@given(tables)
def test_no_one_to_one_matching_is_more_accurate(table: np.ndarray) -> None:
    size = max(table.shape)
    square = np.pad(table, ((0, size - table.shape[0]), (0, size - table.shape[1])))
    best = max(square[range(size), order].sum() for order in map(list, permutations(range(size))))
    counts = matched_counts(table)
    assert counts.tp.sum() == best
    assert (counts.tp + counts.fn).tolist() == table.sum(axis=1).tolist()


def test_counts_add_up_before_the_score_or_scores_after_it() -> None:
    first, second = matched_counts(np.array([[4, 0], [0, 4]])), matched_counts(np.array([[1, 1], [0, 0]]))
    both = first + second
    assert (both.tp.tolist(), both.fp.tolist(), both.fn.tolist()) == ([5, 4], [0, 1], [1, 0])
    assert both.mean_iou == pytest.approx((5 / 6 + 4 / 5) / 2)
    assert (first.mean_iou, second.mean_iou) == (1, (1 / 2 + 0) / 2)
    assert second.f1 == pytest.approx(2 / 3)


def test_the_oracle_gives_each_segment_to_its_primary_class() -> None:
    assert primary_classes(TABLE).tolist() == [2, 0, 0]
    merged = oracle_merged(TABLE)
    assert merged.tolist() == [[9, 0, 1], [0, 0, 0], [2, 0, 4]]
    assert matched_counts(merged).mean_iou == pytest.approx((9 / 12 + 4 / 7) / 2)


@given(tables)
def test_the_oracle_is_at_least_as_accurate_as_the_matching(table: np.ndarray) -> None:
    merged = matched_counts(oracle_merged(table))
    assert merged.accuracy >= matched_counts(table).accuracy
    assert merged.tp.sum() == table.max(axis=0).sum()


def test_all_segments_without_a_class_become_one_background() -> None:
    assert background_groups(WITH_BACKGROUND).tolist() == [6, 6, 2, 6, 6, 5]
    merged = merge_background(WITH_BACKGROUND)
    assert merged[:, [2, 5, 6]].tolist() == [[1, 0, 13], [9, 0, 5], [0, 7, 2], [0, 0, 0]]
    assert merged[:, [0, 1, 3, 4]].sum() == 0
    counts = matched_counts(merged)
    assert (counts.tp.tolist(), counts.fn.tolist()) == ([13, 9, 7, 0], [1, 5, 2, 0])


def test_the_background_may_be_any_row() -> None:
    last = np.roll(WITH_BACKGROUND, -1, axis=0)
    assert merge_background(last, background=3).tolist() == np.roll(merge_background(WITH_BACKGROUND), -1, 0).tolist()


def test_an_image_that_is_all_background_needs_one_segment() -> None:
    assert merge_background(np.array([[3, 4], [0, 0]])).tolist() == [[0, 0, 7], [0, 0, 0]]
    assert merge_background(np.array([[3, 4]])).tolist() == [[0, 0, 7]]


def test_a_perfect_segmentation_scores_1_and_has_no_variation() -> None:
    perfect = np.array([[0, 0, 7], [5, 0, 0], [0, 0, 0], [0, 1, 0]])
    assert scores(perfect) == [1, 1, 0, 1, 1, 1]


def test_nothing_to_score_is_as_good_as_perfect() -> None:
    assert scores(np.zeros((2, 3), int)) == [1, 1, 0, 1, 1, 1]


def test_one_segment_scores_what_its_largest_region_gives() -> None:
    # Regions of 6, 3 and 1 of 10 pixels; 15 + 3 + 0 of 45 pairs lie in one region.
    constant = np.array([[6], [3], [1]])
    entropy = -sum(p * math.log2(p) for p in (0.6, 0.3, 0.1))
    expected = [0.36 + 0.09 + 0.01, 18 / 45, entropy, 0.6, (12 / 16) / 3, 0.6 / 3]
    assert scores(constant) == pytest.approx(expected)


def test_a_segment_for_every_pixel_scores_what_counting_gives() -> None:
    pixels = np.repeat(np.eye(3, dtype=int), [6, 3, 1], axis=1)
    entropy = math.log2(10) + sum(p * math.log2(p) for p in (0.6, 0.3, 0.1))
    expected = [3 / 10, 27 / 45, entropy, 3 / 10, (2 / 7 + 2 / 4 + 1) / 3, (1 / 6 + 1 / 3 + 1) / 3]
    assert scores(pixels) == pytest.approx(expected)


def test_crossing_halves_are_chance() -> None:
    crossing = np.array([[2, 2], [2, 2]])
    assert covering(crossing) == pytest.approx(1 / 3)
    assert variation_of_information(crossing) == 2
    assert rand_index(crossing) == pytest.approx((28 - 12 - 12 + 2 * 4) / 28)


@given(tables, st.randoms(use_true_random=False))
def test_numbers_of_segments_do_not_matter(table: np.ndarray, random: Random) -> None:
    order = random.sample(range(table.shape[1]), table.shape[1])
    assert [score(table[:, order]) for score in SCORES] == pytest.approx([score(table) for score in SCORES])
    assert matched_counts(table[:, order]).accuracy == matched_counts(table).accuracy


@given(tables)
def test_scores_stay_within_their_bounds(table: np.ndarray) -> None:
    *within, variation = covering(table), rand_index(table), variation_of_information(table)
    counts = matched_counts(table)
    assert all(0 <= score <= 1 for score in [*within, counts.accuracy, counts.f1, counts.mean_iou])
    assert variation >= 0


@given(images, images)
def test_variation_of_information_is_that_of_scikit_image(truth: np.ndarray, segments: np.ndarray) -> None:
    ours = variation_of_information(contingency_table(truth, segments))
    assert ours == pytest.approx(reference.variation_of_information(truth, segments).sum(), abs=1e-9)


@given(images, images)
def test_covering_is_what_masks_give(truth: np.ndarray, segments: np.ndarray) -> None:
    masks = [segments == label for label in np.unique(segments)]
    slow = 0.0
    for region in (truth == label for label in np.unique(truth)):
        slow += region.sum() / truth.size * max((region & mask).sum() / (region | mask).sum() for mask in masks)
    assert covering(contingency_table(truth, segments)) == pytest.approx(slow)


@given(images, images)
def test_the_rand_index_is_what_pairs_give(truth: np.ndarray, segments: np.ndarray) -> None:
    joined = np.array(
        [[image.flat[i] == image.flat[j] for i, j in combinations(range(image.size), 2)] for image in (truth, segments)]
    )
    table = contingency_table(truth, segments)
    assert rand_index(table) == pytest.approx((joined[0] == joined[1]).mean())


def test_one_granularity_for_all_or_each_images_own() -> None:
    of_two = np.array([[0.2, 0.6, 0.5], [0.9, 0.4, 0.8]])
    equal = ods_ois(of_two)
    assert [equal.ods, equal.ois, equal.granularity] == pytest.approx([0.65, 0.75, 2])
    weighted = ods_ois(of_two, np.array([1, 4]))
    assert [weighted.ods, weighted.ois, weighted.granularity] == pytest.approx([3.8 / 5, 4.2 / 5, 0])


def test_no_images_have_no_best() -> None:
    with pytest.raises(SegmentationError, match="no best of 0 images at 3 granularities: score at least one"):
        ods_ois(np.zeros((0, 3)))
