import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import interpolate

from tests.builders.graphs import random_walk
from walkcut.errors import SegmentationError
from walkcut.segmentation.algorithms.diffseg import (
    DiffSegSettings,
    _greedy,
    anchor_points,
    diffseg,
    divergence,
    merge_attention,
    object_proposals,
    refine_by_kmeans,
)

seeds = st.integers(0, 1000)


def scene(side: int, seed: int = 0) -> Tensor:
    """Attention in an image of four quarters: patches attend to their own quarter, and a little to all."""
    row, column = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    quarter = (2 * (2 * row // side) + 2 * column // side).flatten()
    speckle = torch.rand(side**2, side**2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    weights = (quarter[:, None] == quarter) * 4.0 + speckle + 0.05
    return weights / weights.sum(1, keepdim=True)


def kl_by_the_paper(p: Tensor, q: Tensor) -> float:
    """Eq. 5 for one pair of maps."""
    return float(((p * (p / q).log()).sum() + (q * (q / p).log()).sum()) / 2)


def diffseg_by_the_paper(maps: list[Tensor], *, threshold: float, rounds: int, anchors: int, size: int) -> Tensor:
    """The upsampled proposals as in the paper and its program: four dimensions and pairwise divergences."""
    sides = [math.isqrt(len(weights)) for weights in maps]
    side = max(sides)
    A = torch.zeros(side, side, side, side, dtype=torch.float64)
    for weights, n in zip(maps, sides, strict=True):
        level = interpolate(weights.reshape(-1, 1, n, n), size=(side, side), mode="bilinear")
        level = (level / level.sum((2, 3), keepdim=True)).reshape(n, n, side, side)
        A += level.repeat_interleave(side // n, 0).repeat_interleave(side // n, 1) * n / sum(sides)
    step = (side - 1) // (anchors - 1)
    start = (side - 1 - step * (anchors - 1)) // 2
    lattice = [start + step * index for index in range(anchors)]
    maps_of_all = A.reshape(-1, side, side)
    proposals = []
    for y in lattice:
        for x in lattice:
            near = [row for row in maps_of_all if kl_by_the_paper(A[y, x], row) < threshold]
            proposals.append(torch.stack(near).mean(0))
    for _ in range(rounds - 1):
        merged, taken = [], set[int]()
        for index, proposal in enumerate(proposals):
            if index not in taken:
                near_at = [i for i, row in enumerate(proposals) if kl_by_the_paper(proposal, row) < threshold]
                taken |= {index, *near_at}
                merged.append(torch.stack([proposals[i] for i in near_at]).mean(0))
        proposals = merged
    return interpolate(torch.stack(proposals)[None], size=(size, size), mode="bilinear")[0]


@settings(max_examples=20)
@given(seeds, st.sampled_from([0.02, 0.08, 0.2, 0.5]), st.integers(1, 3), st.integers(2, 4))
def test_matrix_products_agree_with_the_papers_pairs(seed: int, threshold: float, rounds: int, anchors: int) -> None:
    maps = [scene(6, seed), random_walk(9, seed), random_walk(4, seed)]
    fast = diffseg(maps, threshold=threshold, rounds=rounds, anchors=anchors, size=(24, 24))
    slow = diffseg_by_the_paper(maps, threshold=threshold, rounds=rounds, anchors=anchors, size=24)
    for segment in fast.unique():  # one proposal is the largest everywhere in it, up to rounding
        behind = (slow.max(0).values - slow)[:, fast == segment].amax(1)
        assert float(behind.min()) < 1e-9


def test_four_objects_are_found() -> None:
    labels = diffseg([scene(16), scene(8)], threshold=0.5, anchors=4, size=(32, 32))
    quarters = torch.tensor([[0, 1], [2, 3]]).repeat_interleave(16, 0).repeat_interleave(16, 1)
    torch.testing.assert_close(labels, quarters)


def test_a_threshold_beyond_all_divergences_leaves_one_segment() -> None:
    assert diffseg([scene(8)], threshold=100, anchors=4, size=(9, 7)).unique().tolist() == [0]


def test_half_precision_gives_the_segments_of_single_precision() -> None:
    # Entries below 3e-8 are zero in half precision; the authors' program loses the anchors that hold one.
    sharp = scene(8).pow(6)
    maps = (sharp / sharp.sum(1, keepdim=True)).float()
    assert bool((maps.half() == 0).any())
    labels = [diffseg([kind], threshold=1.0, anchors=4, size=(16, 16)) for kind in (maps, maps.half())]
    torch.testing.assert_close(*labels)


@given(seeds, st.sampled_from([torch.float16, torch.bfloat16]))
def test_divergences_are_never_computed_in_half_precision(seed: int, dtype: torch.dtype) -> None:
    maps = random_walk(36, seed).to(dtype)
    labels = [diffseg([kind], threshold=0.2, anchors=6, size=(12, 12)) for kind in (maps, maps.float())]
    torch.testing.assert_close(*labels)


def test_a_row_of_zeros_becomes_uniform() -> None:
    nowhere, everywhere = scene(4), scene(4)
    nowhere[5], everywhere[5] = 0, 1 / 16
    labels = [diffseg([kind], threshold=0.5, size=(8, 8)) for kind in (nowhere, everywhere)]
    torch.testing.assert_close(*labels)
    assert len(labels[0].unique()) >= 4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("maps", [torch.eye(16), torch.full((16, 16), 1 / 16), torch.zeros(16, 16)])
@pytest.mark.parametrize("refine", [False, True])
def test_extreme_attention_is_segmented(maps: Tensor, dtype: torch.dtype, *, refine: bool) -> None:
    coarse = torch.zeros(4, 4, dtype=dtype)
    labels = diffseg([maps.to(dtype), coarse], threshold=1.0, size=(8, 8), refine=refine)
    assert labels.shape == (8, 8)
    assert labels.dtype == torch.int64
    assert labels.unique().tolist() == list(range(int(labels.max()) + 1))


@given(st.tuples(st.integers(1, 5), st.integers(1, 4)), st.tuples(st.integers(1, 9), st.integers(1, 9)), seeds)
def test_any_grid_and_any_size_give_labels_without_gaps(
    grid: tuple[int, int], size: tuple[int, int], seed: int
) -> None:
    maps = random_walk(grid[0] * grid[1], seed).pow(3)
    labels = diffseg([maps, torch.ones(1, 1)], grids=[grid, (1, 1)], threshold=0.2, size=size)
    assert labels.shape == size
    assert labels.unique().tolist() == list(range(int(labels.max()) + 1))


def test_a_proposal_that_wins_no_pixel_leaves_no_gap() -> None:
    # The proposal in the middle, half its neighbours', is never the strongest.
    assert diffseg([torch.eye(9)], grids=[(3, 3)], threshold=1.0, size=(2, 2)).tolist() == [[0, 1], [2, 3]]


def test_one_hot_maps_stay_apart_and_uniform_ones_merge() -> None:
    everywhere = torch.arange(16)
    assert len(merge_attention(torch.eye(16), everywhere, DiffSegSettings(threshold=1.0))) == 16
    torch.testing.assert_close(
        merge_attention(torch.full((16, 16), 1 / 16), everywhere, DiffSegSettings(threshold=1.0)),
        torch.full((1, 16), 1 / 16),
    )


def test_a_map_is_always_similar_to_itself() -> None:
    P = random_walk(64, 0).float()
    torch.testing.assert_close(merge_attention(P, torch.arange(64), DiffSegSettings(threshold=1e-12)), P)


def test_grids_need_not_be_square() -> None:
    def wide(columns: int) -> Tensor:
        half = (torch.arange(2 * columns) % columns * 2 // columns).double()
        weights = (half[:, None] == half) + 0.05
        return weights / weights.sum(1, keepdim=True)

    labels = diffseg([wide(8), wide(4)], grids=[(2, 8), (2, 4)], threshold=0.5, anchors=4, size=(6, 16))
    torch.testing.assert_close(labels, torch.tensor([0, 1]).repeat_interleave(8).expand(6, 16))


def test_divergence_by_hand() -> None:
    p, q = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.25, 0.75]])
    forth = 0.5 * math.log(2) + 0.5 * math.log(2 / 3)
    back = 0.25 * math.log(1 / 2) + 0.75 * math.log(3 / 2)
    assert float(divergence(p, q)) == pytest.approx((forth + back) / 2)


@given(st.integers(1, 12), seeds)
def test_divergence_is_that_of_each_pair(nodes: int, seed: int) -> None:
    P, Q = random_walk(nodes, seed), random_walk(nodes, seed + 1)
    pairs = torch.tensor([[kl_by_the_paper(p, q) for q in Q] for p in P], dtype=P.dtype)
    torch.testing.assert_close(divergence(P, Q), pairs)
    torch.testing.assert_close(divergence(Q, P), pairs.T)


def test_divergence_is_finite_where_maps_share_nothing() -> None:
    P = torch.cat([torch.eye(3), torch.full((1, 3), 1 / 3), torch.zeros(1, 3)])
    D = divergence(P, P)
    assert bool(torch.isfinite(D).all())
    torch.testing.assert_close(D.diagonal(), torch.zeros(5), atol=1e-6, rtol=0)
    assert float(D[0, 1]) == pytest.approx(-math.log(torch.finfo(torch.float32).tiny))


def test_the_lattice_of_the_authors() -> None:
    rows = anchor_points((64, 64), 16).reshape(16, 16) // 64
    assert rows[:, 0].tolist() == list(range(1, 62, 4))
    torch.testing.assert_close(anchor_points((64, 64), 16).reshape(16, 16) % 64, rows.T)


@pytest.mark.parametrize(
    ("grid", "anchors", "points"),
    [((3, 3), 1, [4]), ((2, 4), 1, [1]), ((2, 3), 16, [0, 1, 2, 3, 4, 5]), ((5, 4), 2, [0, 3, 16, 19])],
)
def test_anchors_by_hand(grid: tuple[int, int], anchors: int, points: list[int]) -> None:
    assert anchor_points(grid, anchors).tolist() == points


def test_a_proposal_taken_in_starts_no_union_but_counts_in_later_ones() -> None:
    chain = torch.tensor([[1, 1, 0], [1, 1, 1], [0, 1, 1]]).bool()
    assert _greedy(chain).int().tolist() == [[1, 1, 0], [0, 1, 1]]


@given(st.integers(1, 9), seeds)
def test_proposals_are_distributions(rounds: int, seed: int) -> None:
    P = random_walk(12, seed)
    proposals = merge_attention(P, torch.arange(0, 12, 2), DiffSegSettings(threshold=0.1, rounds=rounds))
    torch.testing.assert_close(proposals.sum(1), torch.ones(len(proposals), dtype=P.dtype))
    assert len(proposals) <= 6


def test_refinement_takes_the_means_of_the_clusters() -> None:
    P, rough = scene(4), torch.eye(16, dtype=torch.float64)[[0, 2, 8, 10]]
    quarters = [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]
    torch.testing.assert_close(refine_by_kmeans(P, rough), torch.stack([P[quarter].mean(0) for quarter in quarters]))


def test_refinement_follows_the_merging() -> None:
    P = random_walk(16, 0)
    rough, refined = (
        object_proposals(P, (4, 4), DiffSegSettings(threshold=0.2, anchors=3, refine=refine))
        for refine in (False, True)
    )
    assert not torch.equal(rough, refined)
    torch.testing.assert_close(refined, refine_by_kmeans(P, rough))


def test_refinement_moves_a_proposal_that_no_patch_is_nearest_to() -> None:
    P = scene(4)
    means = refine_by_kmeans(P, torch.cat([P[:1], P[:1], P[15:]]))
    assert len(means) == 3
    assert bool(means.isfinite().all())


@pytest.mark.parametrize("threshold", [0.0, -1.0, math.nan, math.inf])
def test_a_threshold_out_of_range_is_refused(threshold: float) -> None:
    with pytest.raises(SegmentationError, match=f"finite and above 0, not {threshold}"):
        diffseg([torch.eye(4)], threshold=threshold, size=(2, 2))


def test_no_round_is_refused() -> None:
    with pytest.raises(SegmentationError, match="at least 1 round, not 0"):
        diffseg([torch.eye(4)], threshold=1.0, rounds=0, size=(2, 2))


def test_no_anchor_is_refused() -> None:
    with pytest.raises(SegmentationError, match="at least 1 anchor along each side, not 0"):
        diffseg([torch.eye(4)], threshold=1.0, anchors=0, size=(2, 2))


def test_grids_that_are_not_square_must_be_given() -> None:
    with pytest.raises(SegmentationError, match=r"6 patches do not form a square grid: pass grids="):
        diffseg([torch.eye(6)], threshold=1.0, size=(2, 2))


@pytest.mark.parametrize("value", [math.nan, math.inf, -0.5])
def test_attention_out_of_range_is_refused(value: float) -> None:
    maps = torch.eye(4)
    maps[1, 2] = value
    with pytest.raises(SegmentationError, match="finite and not negative"):
        diffseg([maps], threshold=1.0, size=(2, 2))


def test_no_map_is_refused() -> None:
    with pytest.raises(SegmentationError, match="at least one level"):
        diffseg([], threshold=1.0, size=(2, 2))


# Two objects, and in maps 0 and 3 an entry that is zero in half precision.
LOSSY = torch.tensor([[0.9, 0.1, 1e-8, 1e-8], [0.8, 0.2, 1e-7, 1e-7], [1e-7, 1e-7, 0.2, 0.8], [1e-8, 1e-8, 0.1, 0.9]])


def test_half_precision_loses_maps_with_zeros() -> None:
    everywhere = torch.arange(4)
    whole = merge_attention(LOSSY, everywhere, DiffSegSettings(threshold=1.0))
    lost = merge_attention(LOSSY, everywhere, DiffSegSettings(threshold=1.0, half_precision=True))
    # Only maps 1 and 2 are left: as anchors and in the means.
    torch.testing.assert_close(whole, LOSSY.unflatten(0, (2, 2)).mean(1))
    torch.testing.assert_close(lost, LOSSY[1:3])


def test_half_precision_rounds_what_is_compared_but_not_what_is_averaged() -> None:
    # 4e-8 is 6e-8 in half precision, so that the divergence is larger.
    P = torch.tensor([[0.5, 0.5], [1 - 4e-8, 4e-8]])
    exact, rounded = float(divergence(P, P)[0, 1]), float(divergence(P.half().float(), P.half().float())[0, 1])
    threshold = (exact + rounded) / 2
    assert rounded < exact
    torch.testing.assert_close(merge_attention(P, torch.arange(2), DiffSegSettings(threshold=threshold, rounds=1)), P)
    merged = merge_attention(P, torch.arange(2), DiffSegSettings(threshold=threshold, rounds=1, half_precision=True))
    torch.testing.assert_close(merged, P.mean(0).expand(2, 2))


def test_half_precision_changes_nothing_where_nothing_is_lost() -> None:
    labels = [diffseg([scene(8)], threshold=0.5, anchors=4, size=(9, 9), half_precision=half) for half in (True, False)]
    torch.testing.assert_close(*labels)


def test_half_precision_that_loses_all_is_refused() -> None:
    with pytest.raises(SegmentationError, match=r"all anchors are lost to half precision: set half_precision=False"):
        diffseg([torch.eye(4)], threshold=1.0, size=(2, 2), half_precision=True)


def test_labels_are_the_same_each_time() -> None:
    first, second = (diffseg([scene(8)], threshold=0.3, size=(16, 16), refine=True) for _ in range(2))
    np.testing.assert_array_equal(first, second)
