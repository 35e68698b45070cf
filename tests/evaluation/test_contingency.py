import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from walkcut.errors import SegmentationError
from walkcut.evaluation.contingency import coarsened, contingency_table

TRUTH = np.array([[0, 0, 2], [0, 2, 255]])
SEGMENTS = np.array([[1, 1, 1], [0, 0, 3]], np.uint16)
labels = hnp.arrays(np.int64, (3, 4), elements=st.integers(0, 5))


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


@given(labels, labels)
def test_the_table_is_what_counting_gives(truth: np.ndarray, segments: np.ndarray) -> None:
    slow = np.zeros((truth.max() + 1, segments.max() + 1), int)
    for pair in zip(truth.flat, segments.flat, strict=True):
        slow[pair] += 1
    assert contingency_table(truth, segments).tolist() == slow.tolist()


@given(labels, labels, hnp.arrays(np.int64, 6, elements=st.integers(0, 7)))
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
