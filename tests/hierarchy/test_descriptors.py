import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from walkcut.hierarchy.descriptors import leaf_means, union_descriptors


def test_means_are_taken_where_a_leaf_lies_on_the_features_grid() -> None:
    leaves = np.array([[0, 0, 1, 1], [0, 0, 1, 1]], np.uint16).repeat(3, 0)
    features = np.array([[[1.0, 0.5], [1.0, 0.0]], [[0.0, 0.5], [1.0, 0.5]]], np.float32)
    assert leaf_means(leaves, features).tolist() == [[1, 0.5], [0.25, 0.5]]
    assert leaf_means(leaves, features[:, :1]).tolist() == [[1, 0], [0.5, 0.5]]


def test_a_leaf_at_no_cells_centre_takes_the_cell_around_it() -> None:
    leaves = np.zeros((8, 8), np.uint16)
    leaves[0, 7] = 1
    features = np.array([[[0.0, 1.0], [0.0, 0.0]]], np.float32)
    assert leaf_means(leaves, features).tolist() == [[0.25], [1]]


def test_a_cell_belongs_to_the_leaf_at_its_centre() -> None:
    leaves = np.array([[0, 1, 1, 1]], np.uint16)
    assert leaf_means(leaves, np.array([[[1.0, 0.5]]], np.float32)).tolist() == [[1], [0.75]]


def test_opposite_features_are_farthest_apart() -> None:
    first, second = union_descriptors(np.array([[0.5, 0.5], [-0.5, -0.5]], np.float16), np.eye(2))
    assert np.linalg.norm(first - second) == pytest.approx(2)


def test_a_grid_finer_than_the_image_is_sampled_too() -> None:
    leaves = np.array([[0, 1]], np.uint16)
    assert leaf_means(leaves, np.array([[[1.0, 1.0, 0.5, 0.5]] * 3], np.float32)).tolist() == [[1], [0.5]]


def test_large_features_keep_within_half_precision() -> None:
    means = leaf_means(np.array([[0, 1]], np.uint16), np.array([[[2e5, 1e5]]], np.float32))
    assert means.tolist() == [[1], [0.5]]


@given(st.integers(0, 100), st.integers(1, 5))
def test_a_descriptor_does_not_depend_on_how_the_union_is_divided(seed: int, factor: int) -> None:
    rng = np.random.default_rng(seed)
    means, areas = rng.normal(size=(4, 6)).astype(np.float16), rng.integers(1, 9, (1, 4))
    whole = union_descriptors(means, areas)
    assert np.linalg.norm(whole) == pytest.approx(1)
    assert union_descriptors(means, areas * factor) == pytest.approx(whole, abs=1e-6)
    split = np.concatenate([areas - areas // 2, areas // 2], 1)
    assert union_descriptors(np.concatenate([means, means]), split) == pytest.approx(whole, abs=1e-6)


def test_distances_of_histograms_are_hellinger_distances() -> None:
    first, second = union_descriptors(np.array([[0.5, 0.5], [0.1, 0.9]], np.float16), np.eye(2))
    overlap = np.sqrt(0.5 * 0.1) + np.sqrt(0.5 * 0.9)
    assert np.linalg.norm(first - second) ** 2 == pytest.approx(2 - 2 * overlap, abs=1e-3)


def test_features_of_zeros_are_no_error() -> None:
    means = leaf_means(np.zeros((2, 2), np.uint16), np.zeros((3, 2, 2), np.float32))
    assert union_descriptors(means, np.ones((1, 1))).tolist() == [[0, 0, 0]]
