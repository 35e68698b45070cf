from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders.trees import LEVELS, ROW, random_tree
from walkcut.errors import SegmentationError
from walkcut.evaluation.metrics import contingency_table, covering
from walkcut.hierarchy.cut_tree import CutTree
from walkcut.hierarchy.granularity import Level, Segments
from walkcut.hierarchy.hierarchy import Hierarchy
from walkcut.learning.granularity_fit import CANDIDATE_GRANULARITIES, covering_scores


def slow_covering(labels: np.ndarray, masks: Sequence[np.ndarray]) -> float:
    """Return the covering by its definition, set by set."""
    best = [
        max((mask & (labels == s)).sum() / (mask | (labels == s)).sum() for s in np.unique(labels)) for mask in masks
    ]
    return float(np.average(best, weights=[mask.sum() for mask in masks]))


@settings(max_examples=20)
@given(st.integers(0, 1000), st.integers(1, 4))
def test_covering_scores_are_those_of_the_definition(seed: int, regions: int) -> None:
    tree = random_tree(seed)
    masks = np.random.default_rng(seed).random((regions, *tree.size)) < 0.3
    granularities = [Segments(count) for count in range(1, 9)]
    assert covering_scores(tree, [*masks], granularities) == pytest.approx(
        [slow_covering(tree.labels(granularity), [*masks]) for granularity in granularities]
    )


@settings(max_examples=20)
@given(st.integers(0, 1000))
def test_for_a_full_annotation_it_is_the_segmentation_covering(seed: int) -> None:
    tree = random_tree(seed)
    truth = np.random.default_rng(seed).integers(0, 3, tree.size)
    table = contingency_table(truth, tree.labels(Level.FINE))
    assert covering_scores(tree, [truth == region for region in range(3)], [Level.FINE]) == pytest.approx(
        [covering(table)]
    )


def test_one_annotated_object_fits_neither_finer_nor_coarser_segments() -> None:
    leaves = np.arange(16, dtype=np.uint16).reshape(4, 4)
    merges = np.array([[0, 1], [2, 16], [3, 17], *([row + 4, row + 18] for row in range(12))])
    tree = CutTree(leaves, Hierarchy(merges, np.linspace(0.9, 0.1, 15), np.ones(15, bool)), LEVELS)
    fits = covering_scores(tree, [leaves < 4], [Segments(count) for count in range(1, 17)])
    assert fits.argmax() == 12  # 13 segments: the object, and 12 single pixels
    assert fits[[0, 12, 15]].tolist() == [4 / 16, 1, 1 / 4]


def test_regions_count_by_their_pixels() -> None:
    masks = [np.array([[True, True, True, False, False]]), np.array([[False, False, False, True, False]])]
    assert covering_scores(ROW, masks, [Level.MEDIUM]).tolist() == [(3 * 1 + 1 * 0.5) / 4]


def test_candidates_go_from_coarse_to_fine() -> None:
    counts = [random_tree(3).segment_count(granularity) for granularity in CANDIDATE_GRANULARITIES]
    assert counts == sorted(counts)
    assert len(set(map(str, CANDIDATE_GRANULARITIES))) == 24


def test_a_mask_of_another_image_is_refused() -> None:
    with pytest.raises(SegmentationError, match=r"mask of \(2, 2\) does not fit an image of \(1, 5\)"):
        covering_scores(ROW, [np.ones((2, 2), bool)])


def test_an_empty_annotation_is_refused() -> None:
    with pytest.raises(SegmentationError, match="annotate a region"):
        covering_scores(ROW, [np.zeros((1, 5), bool)])
