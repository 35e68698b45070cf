"""Leaves of a contour map, and their merging against cases by hand and a slow truth."""

import numpy as np
import pytest
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from walkcut.backbones.classical import chi_square
from walkcut.errors import SegmentationError
from walkcut.hierarchy.hierarchy import renumber
from walkcut.hierarchy.merge_rule import MergeRule
from walkcut.segmentation.algorithms.region_merging import merge_leaves, watershed_leaves

PLAIN = MergeRule(histogram=0, growth=0, smallest=1e-9, scale=1, auto=0.5)


def _random_case(seed: int) -> tuple[Int64[np.ndarray, "y x"], Float[Tensor, "y x"], Float[Tensor, "c y x"]]:
    random = torch.Generator().manual_seed(seed)
    contour = torch.rand(7, 8, generator=random)
    features = torch.rand(3, 7, 8, generator=random).softmax(0)
    return watershed_leaves(contour), contour, features


def _slow_merge(
    leaves: Int64[np.ndarray, "y x"], contour: Float[Tensor, "y x"], features: Float[Tensor, "c y x"], rule: MergeRule
) -> list[tuple[set[frozenset[int]], float]]:
    """All partitions on the way with their separations, measuring every pair again, pixel by pixel."""
    groups = {frozenset({leaf}) for leaf in range(leaves.max() + 1)}
    steps = []
    while len(groups) > 1:
        pairs = [(a, b) for a in groups for b in groups if min(a) < min(b)]
        measured = {pair: _slow_separation(*pair, leaves, contour.numpy(), features.numpy(), rule) for pair in pairs}
        a, b = min(measured, key=lambda pair: measured[pair])
        groups = (groups - {a, b}) | {a | b}
        steps.append((groups, measured[a, b]))
    return steps


def _slow_separation(
    a: frozenset[int],
    b: frozenset[int],
    leaves: Int64[np.ndarray, "y x"],
    contour: Float[np.ndarray, "y x"],
    features: Float[np.ndarray, "c y x"],
    rule: MergeRule,
) -> float:
    in_a, in_b = (np.isin(leaves, list(group)) for group in (a, b))
    border = [
        (contour[here] + contour[there]) / 2 for here, there in _sides(leaves.shape) if in_a[here] and in_b[there]
    ]
    if not border:
        return np.inf
    sizes = []
    for inside in (in_a, in_b):
        perimeter = sum(bool(inside[here]) and not inside[there] for here, there in _sides(leaves.shape))
        sizes.append(max(inside.sum() - perimeter / 2, 0.25) / leaves.size)
    p, q = (features[:, inside].mean(1).astype(np.float64) for inside in (in_a, in_b))
    distance = ((p - q) ** 2 / (p + q)).sum() / 2
    size = min(sizes)
    strength = float(np.mean(border)) + rule.histogram * distance
    return float(strength * size**rule.growth * min(1, size / rule.smallest))


def _sides(shape: tuple[int, ...]) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Each pixel with each of its four neighbours."""
    height, width = shape
    pixels = [(y, x) for y in range(height) for x in range(width)]
    steps = [(0, 1), (1, 0), (0, -1), (-1, 0)]
    moves = [((y, x), (y + dy, x + dx)) for y, x in pixels for dy, dx in steps]
    return [(here, (y, x)) for here, (y, x) in moves if 0 <= y < height and 0 <= x < width]


def test_leaves_are_the_basins_between_ridges() -> None:
    contour = torch.tensor([[0.1, 0.2, 0.9, 0.0, 0.5, 0.3]])
    leaves = watershed_leaves(contour)
    assert leaves[0, [0, 1, 3, 5]].tolist() == [0, 0, 1, 2]


def test_a_constant_contour_has_one_leaf_and_no_merge() -> None:
    leaves = watershed_leaves(torch.zeros(4, 5))
    hierarchy = merge_leaves(leaves, torch.zeros(4, 5), torch.ones(1, 4, 5))
    assert not leaves.any()
    assert (hierarchy.merges.shape, hierarchy.costs.shape, hierarchy.is_cut.shape) == ((0, 2), (0,), (0,))


def test_three_leaves_in_a_row_merge_over_the_weaker_border_first() -> None:
    leaves = np.array([[0, 0, 1, 1, 2, 2]])
    contour = torch.tensor([[0, 0.8, 1.0, 0.1, 0.3, 0]])
    hierarchy = merge_leaves(leaves, contour, torch.ones(1, 1, 6), rule=PLAIN)
    assert hierarchy.merges.tolist() == [[1, 2], [0, 3]]
    np.testing.assert_allclose(hierarchy.costs, np.exp([-(0.2**3), -(0.9**3)]), rtol=1e-6)
    assert hierarchy.is_cut.tolist() == [False, True]


def test_costs_stay_monotone_where_a_union_comes_nearer_to_a_third() -> None:
    """The leaves lie 0.2 apart, but the union of two only 1/6 from the third."""
    leaves = np.array([[0, 1], [2, 2]])
    means = torch.tensor([[0.6, 0.2, 0.2], [0.2, 0.6, 0.2], [0.2, 0.2, 0.6]])
    rule = MergeRule(histogram=1, growth=0, smallest=1e-9, scale=1)
    hierarchy = merge_leaves(leaves, torch.zeros(2, 2), means[leaves].permute(2, 0, 1), rule=rule)
    np.testing.assert_allclose(hierarchy.costs, np.exp([-(0.2**3)] * 2), rtol=1e-6)


def test_histograms_separate_regions_without_a_contour() -> None:
    leaves = np.array([[0, 1, 2]]).repeat(3, 1)
    features = torch.tensor([[1.0, 1, 1, 0.9, 0.9, 0.9, 0, 0, 0]])[:, None]
    features = torch.cat([features, 1 - features])
    rule = MergeRule(histogram=1, growth=0, smallest=1e-9)
    hierarchy = merge_leaves(leaves, torch.zeros(1, 9), features, rule=rule)
    assert hierarchy.merges.tolist() == [[0, 1], [2, 3]]


def test_an_embedding_separates_regions_by_a_quarter_of_the_squared_distance() -> None:
    leaves = np.array([[0, 1, 2]]).repeat(3, 1)
    embedding = torch.tensor([[0.0, 0, 0, -1, -1, -1, 1, 1, 1]])[:, None]
    rule = MergeRule(histogram=1, growth=0, smallest=1e-9, scale=1, embedding=0.8)
    bins = torch.tensor([[0.2, 0, 0.4], [0.8, 1, 0.6]]).repeat_interleave(3, 1)[:, None]
    hierarchy = merge_leaves(leaves, torch.zeros(1, 9), bins, embedding=embedding, rule=rule)
    assert hierarchy.merges.tolist() == [[0, 1], [2, 3]]
    chi_squares = chi_square(np.array([[0.2, 0.8], [0.1, 0.9]]), np.array([[0, 1], [0.4, 0.6]]))
    expected = rule.cost(chi_squares + 0.8 * np.array([1, 1.5**2]) / 4)
    np.testing.assert_allclose(hierarchy.costs, expected, rtol=1e-5)
    same_bins = merge_leaves(leaves, torch.zeros(1, 9), torch.ones(1, 1, 9), embedding=embedding, rule=rule)
    assert same_bins.costs.tolist() == [1, 1]


def test_a_sliver_merges_before_everything_else() -> None:
    leaves = np.array([[0] * 8 + [1] + [2] * 8]).repeat(20, 0)
    contour = torch.full((20, 17), 0.2)
    contour[:, 8] = 1
    leaves[:10, :8] = 3
    hierarchy = merge_leaves(renumber(leaves), contour, torch.ones(1, 20, 17))
    sliver = renumber(leaves)[0, 8]
    assert sliver in hierarchy.merges[0]


def test_chi_square_of_disjoint_equal_and_mixed_histograms() -> None:
    p = np.array([[1.0, 0.0], [0.5, 0.5], [1.0, 0.0]])
    q = np.array([[0.0, 1.0], [0.5, 0.5], [0.5, 0.5]])
    np.testing.assert_allclose(chi_square(p, q), [1, 0, (0.25 / 1.5 + 0.25 / 0.5) / 2])


@pytest.mark.parametrize("seed", range(6))
def test_merging_agrees_with_the_slow_truth(seed: int) -> None:
    leaves, contour, features = _random_case(seed)
    rule = MergeRule()
    hierarchy = merge_leaves(leaves, contour, features, rule=rule)
    truth = _slow_merge(leaves, contour, features, rule)
    groups = {leaf: frozenset({leaf}) for leaf in range(hierarchy.leaf_count)}
    for row, (left, right) in enumerate(hierarchy.merges.tolist()):
        groups[hierarchy.leaf_count + row] = groups.pop(left) | groups.pop(right)
        assert set(groups.values()) == truth[row][0]
    separations = np.array([separation for _, separation in truth])
    np.testing.assert_allclose(hierarchy.costs, rule.cost(separations), rtol=1e-5)


@pytest.mark.parametrize("seed", range(6))
def test_the_numbering_of_the_leaves_does_not_matter(seed: int) -> None:
    leaves, contour, features = _random_case(seed)
    shuffle = np.random.default_rng(seed).permutation(leaves.max() + 1)
    first, second = merge_leaves(leaves, contour, features), merge_leaves(shuffle[leaves], contour, features)
    np.testing.assert_allclose(first.costs, second.costs, rtol=1e-9)
    half = np.arange(first.leaf_count - 1) < first.leaf_count // 2
    np.testing.assert_array_equal(
        renumber(first.cluster_of(half)[leaves]), renumber(second.cluster_of(half)[shuffle[leaves]])
    )


def test_negative_features_are_refused() -> None:
    with pytest.raises(SegmentationError, match=r"go down to -1: merging needs non-negative features"):
        merge_leaves(np.zeros((2, 2), np.int64), torch.zeros(2, 2), -torch.ones(1, 2, 2))


def test_sizes_must_match() -> None:
    with pytest.raises(SegmentationError, match=r"differ in size .*\(3, 2\).*: resample"):
        merge_leaves(np.zeros((2, 2), np.int64), torch.zeros(3, 2), torch.ones(1, 3, 2))
    leaves, contour = np.zeros((2, 2), np.int64), torch.zeros(2, 2)
    with pytest.raises(SegmentationError, match=r"differ in size .*\(3, 2\).*: resample"):
        merge_leaves(leaves, contour, torch.ones(1, 2, 2), embedding=torch.ones(1, 3, 2))
