"""Leaves of a contour map, and their merging against cases by hand and a slow truth."""

import numpy as np
import pytest
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from walkcut.backbones.classical import chi_square
from walkcut.errors import SegmentationError
from walkcut.hierarchy.hierarchy import renumber
from walkcut.hierarchy.merge_rule import MergeRule
from walkcut.segmentation.algorithms.region_merging import merge_leaves, watershed_leaves

PLAIN = MergeRule(histogram=0, gap=np.inf, growth=0, smallest=1e-9, scale=1, auto=0.5)


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
    sizes = []
    for inside in (in_a, in_b):
        perimeter = sum(bool(inside[here]) and not inside[there] for here, there in _sides(leaves.shape))
        sizes.append(max(inside.sum() - perimeter / 2, 0.25) / leaves.size)
    p, q = (features[:, inside].mean(1).astype(np.float64) for inside in (in_a, in_b))
    distance = ((p - q) ** 2 / (p + q)).sum() / 2
    size = min(sizes)
    if border:
        strength = float(np.mean(border)) + rule.histogram * distance
    elif share := _slow_share(in_a, in_b):
        strength = rule.gap / share + rule.gap_histogram * distance
    else:
        return np.inf
    return float(strength * size**rule.growth * min(1, size / rule.smallest))


def _slow_share(in_a: Bool[np.ndarray, "y x"], in_b: Bool[np.ndarray, "y x"]) -> float:
    """The larger share that one has in what lies one pixel beyond the other, of at most 32 columns and rows."""
    steps = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx]
    shares = []
    for inside, other in ((in_a, in_b), (in_b, in_a)):
        beyond = [
            (y + dy, x + dx)
            for y, x in np.argwhere(inside)
            for dy, dx in steps
            if 0 <= y + dy < len(inside) and 0 <= x + dx < inside.shape[1] and not inside[y + dy, x + dx]
        ]
        shares.append(float(np.mean([other[pixel] for pixel in beyond])))
    return max(shares)


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


def _behind_bars(gap: int, colours: tuple[float, ...]) -> tuple[Int64[np.ndarray, "y x"], Tensor, Tensor]:
    """Leaves of panes 60 pixels wide between bars of `gap` pixels, the contour, and a histogram of two bins."""
    columns = np.concatenate([np.repeat([2 * pane, 2 * pane + 1], [60, gap]) for pane in range(len(colours))])[:-gap]
    leaves = np.broadcast_to(columns, (64, len(columns))).copy()
    light = torch.tensor([shade for colour in colours for shade in (colour, 0.0)])[leaves]
    contour = torch.zeros(leaves.shape)
    edges = np.flatnonzero(np.diff(columns))
    contour[:, edges] = contour[:, edges + 1] = 0.8
    return leaves, contour, torch.stack([light, 1 - light]) * 0.9 + 0.05


def test_panes_of_one_colour_behind_bars_join_before_all_else() -> None:
    hierarchy = merge_leaves(*_behind_bars(2, (1.0, 1.0, 1.0)))
    assert set(hierarchy.merges[:2].ravel().tolist()) == {0, 2, 4, 5}
    assert hierarchy.costs[1] > MergeRule().auto > hierarchy.costs[-1]


def test_panes_of_different_colours_behind_bars_stay_apart() -> None:
    hierarchy = merge_leaves(*_behind_bars(2, (1.0, 0.6)))
    assert sorted(hierarchy.merges[0].tolist()) != [0, 2]


def test_regions_far_apart_do_not_join() -> None:
    hierarchy = merge_leaves(*_behind_bars(12, (1.0, 1.0)))
    assert sorted(hierarchy.merges[0].tolist()) != [0, 2]


def test_with_an_infinite_gap_only_neighbours_merge() -> None:
    hierarchy = merge_leaves(*_behind_bars(2, (1.0, 1.0)), rule=MergeRule(gap=np.inf))
    assert sorted(hierarchy.merges[0].tolist()) != [0, 2]


def test_fine_regions_merge_with_neighbours_alone() -> None:
    """Of 17 × 17 squares in two colours, those of one colour touch at corners only."""
    leaves = np.arange(17 * 17).reshape(17, 17).repeat(2, 0).repeat(2, 1)
    light = torch.from_numpy((np.indices((17, 17)).sum(0) % 2).repeat(2, 0).repeat(2, 1) * 0.8 + 0.1)
    hierarchy = merge_leaves(leaves, torch.full(leaves.shape, 0.9), torch.stack([light, 1 - light]))
    rows, columns = np.divmod(hierarchy.merges[:1], 17)
    assert np.abs(np.diff(rows)) + np.abs(np.diff(columns)) == 1


def test_negative_features_are_refused() -> None:
    with pytest.raises(SegmentationError, match=r"go down to -1: merging needs non-negative features"):
        merge_leaves(np.zeros((2, 2), np.int64), torch.zeros(2, 2), -torch.ones(1, 2, 2))


def test_sizes_must_match() -> None:
    with pytest.raises(SegmentationError, match=r"differ in size .*\(3, 2\).*: resample"):
        merge_leaves(np.zeros((2, 2), np.int64), torch.zeros(3, 2), torch.ones(1, 3, 2))
    leaves, contour = np.zeros((2, 2), np.int64), torch.zeros(2, 2)
    with pytest.raises(SegmentationError, match=r"differ in size .*\(3, 2\).*: resample"):
        merge_leaves(leaves, contour, torch.ones(1, 2, 2), embedding=torch.ones(1, 3, 2))
