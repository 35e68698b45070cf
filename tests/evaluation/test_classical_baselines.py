"""The classical segmenters keep to the contract, and find what anyone would."""

import numpy as np
import pytest
from skimage.color import rgb2lab
from skimage.segmentation import quickshift

from tests.builders.scenes import agreement, quarter_labels, quarters
from walkcut.evaluation.classical_baselines import (
    PEERS,
    Clusters,
    ColourKMeans,
    CutCost,
    Peer,
    SlicNCut,
    linked,
    without_small,
)
from walkcut.evaluation.contingency import contingency_table
from walkcut.evaluation.metrics import variation_of_information
from walkcut.evaluation.systems import System
from walkcut.hierarchy.hierarchy import renumber

each_peer = pytest.mark.parametrize("peer", PEERS.values(), ids=PEERS)
GREY = np.repeat(quarters(60, 90).mean(2, keepdims=True).astype(np.uint8), 3, axis=2)
IMAGES = {
    "grey": GREY,
    "one colour": np.full((50, 40, 3), 90, np.uint8),
    "black": np.zeros((30, 40, 3), np.uint8),
    "tiny": quarters(16, 16),
    "one pixel": quarters(1, 1),
    "four pixels": quarters(2, 2),
    "line": quarters(1, 60),
    "long": quarters(4, 700),
}


@each_peer
def test_a_peer_is_a_candidate(peer: System) -> None:
    assert isinstance(peer, System)
    assert PEERS[peer.name] is peer
    assert 8 <= len(set(peer.settings)) == len(peer.settings) <= 14


@each_peer
@pytest.mark.parametrize("image", IMAGES.values(), ids=IMAGES)
def test_labels_fit_the_image_and_have_no_gaps(peer: System, image: np.ndarray) -> None:
    answers = peer.segment(image, 1)
    assert len(answers) == len(peer.settings)
    for labels in answers:
        assert labels.shape == image.shape[:2]
        assert np.array_equal(np.unique(labels), np.arange(labels.max() + 1))


@each_peer
def test_a_peer_answers_the_same_each_time_and_whatever_the_truth(peer: System) -> None:
    image = quarters(60, 90, noise=30)
    for first, second in zip(peer.segment(image, 2), peer.segment(image, 9), strict=True):
        assert np.array_equal(first, second)


@each_peer
def test_a_peer_finds_four_quarters(peer: System) -> None:
    found = peer.segment(quarters(240, 320), 1)
    assert max(agreement(labels, quarter_labels(240, 320)) for labels in found if labels.max() < 8) > 0.97


@each_peer
def test_settings_go_from_coarse_to_fine(peer: System) -> None:
    segments = [labels.max() for labels in peer.segment(quarters(120, 160, noise=60), 1)]
    assert segments[0] < segments[-1]


def test_settings_name_their_parameters() -> None:
    peer = Peer("k", ColourKMeans((Clusters(2, 0.05), Clusters(3, 0.01))), side=50)
    assert peer.settings == ("k=2 min_part=0.05", "k=3 min_part=0.01")


def test_another_setting_is_another_version() -> None:
    one, same, other, smaller = (
        Peer("k", ColourKMeans((Clusters(k, 0.05),)), side=side) for k, side in ((2, 50), (2, 50), (3, 50), (2, 40))
    )
    assert one.version == same.version
    assert len({one.version, other.version, smaller.version}) == 3


def test_no_edge_of_the_superpixels_graph_weighs_less_than_the_least() -> None:
    """At the default colours part four quarters; where every edge weighs the most there is, nothing does."""
    lab = rgb2lab(quarters(60, 80))
    least, most = (SlicNCut((CutCost(0.03),), least_weight=weight).partitions(lab)[0] for weight in (1e-3, 1.0))
    assert agreement(renumber(least), quarter_labels(60, 80)) > 0.97
    assert len(np.unique(most)) == 1


def test_linked_pixels_follow_their_parents() -> None:
    parent = np.array([[1, 1, 1, 4, 4]])
    assert linked(parent, np.array([[True, True, True, True, True]])).tolist() == [[0, 0, 0, 1, 1]]
    assert linked(parent, np.array([[True, True, False, True, True]])).tolist() == [[0, 0, 1, 2, 2]]


@pytest.mark.parametrize("longest", [3, 10, 40])
def test_one_tree_of_links_cut_is_quickshift_itself(longest: float) -> None:
    lab = rgb2lab(quarters(24, 32, noise=30))
    _, parent, length = quickshift(lab, kernel_size=4, max_dist=np.inf, convert2lab=False, return_tree=True)
    alone = quickshift(lab, kernel_size=4, max_dist=longest, convert2lab=False)
    ours = linked(np.asarray(parent), np.asarray(length) <= longest)
    assert variation_of_information(contingency_table(ours, alone)) == 0


def test_parts_of_a_cluster_are_segments_and_small_ones_go_to_the_nearest() -> None:
    clusters = np.array([[0, 0, 1, 1, 0, 0], [0, 0, 2, 1, 0, 0]])
    assert renumber(without_small(clusters, 0.1)).tolist() == [[0, 0, 1, 1, 2, 2], [0, 0, 0, 1, 2, 2]]
    assert len(np.unique(without_small(clusters, 0))) == 4
    assert not without_small(clusters, 0.9).any()
