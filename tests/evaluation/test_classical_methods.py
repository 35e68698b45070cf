"""Classical methods: their graph, links and small parts."""

import numpy as np
import pytest
from skimage.color import rgb2lab
from skimage.segmentation import quickshift

from tests.builders.scenes import agreement, quarter_labels, quarters
from walkcut.evaluation.classical_methods import NCutSetting, SlicNCut, linked, without_small
from walkcut.evaluation.contingency import contingency_table
from walkcut.evaluation.metrics import variation_of_information
from walkcut.hierarchy.hierarchy import renumber


def test_no_edge_of_the_superpixels_graph_weighs_less_than_the_minimum() -> None:
    """By default colours separate four quarters; if all edges weigh 1, nothing does."""
    lab = rgb2lab(quarters(60, 80))
    default, equal = (SlicNCut((NCutSetting(0.03),), min_weight=weight).partitions(lab)[0] for weight in (1e-3, 1.0))
    assert agreement(renumber(default), quarter_labels(60, 80)) > 0.97
    assert len(np.unique(equal)) == 1


def test_linked_pixels_follow_their_parents() -> None:
    parent = np.array([[1, 1, 1, 4, 4]])
    assert linked(parent, np.array([[True, True, True, True, True]])).tolist() == [[0, 0, 0, 1, 1]]
    assert linked(parent, np.array([[True, True, False, True, True]])).tolist() == [[0, 0, 1, 2, 2]]


@pytest.mark.parametrize("longest", [3, 10, 40])
def test_one_tree_of_links_cut_is_quickshift_itself(longest: float) -> None:
    lab = rgb2lab(quarters(24, 32, noise=30))
    _, parent, length = quickshift(lab, kernel_size=4, max_dist=np.inf, convert2lab=False, return_tree=True)
    direct = quickshift(lab, kernel_size=4, max_dist=longest, convert2lab=False)
    ours = linked(np.asarray(parent), np.asarray(length) <= longest)
    assert variation_of_information(contingency_table(ours, direct)) == 0


def test_parts_of_a_cluster_are_segments_and_small_ones_go_to_the_nearest() -> None:
    clusters = np.array([[0, 0, 1, 1, 0, 0], [0, 0, 2, 1, 0, 0]])
    assert renumber(without_small(clusters, 0.1)).tolist() == [[0, 0, 1, 1, 2, 2], [0, 0, 0, 1, 2, 2]]
    assert len(np.unique(without_small(clusters, 0))) == 4
    assert not without_small(clusters, 0.9).any()
