import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.builders.graphs import random_walk
from walkcut.errors import SegmentationError
from walkcut.segmentation.algorithms.random_walk import aggregate, walk

grids = st.tuples(st.integers(1, 4), st.integers(1, 5))


@given(grids, grids, st.integers(0, 1000))
def test_rows_of_the_aggregate_sum_to_one(coarse: tuple[int, int], fine: tuple[int, int], seed: int) -> None:
    maps = [random_walk(height * width, seed) for height, width in (coarse, fine)]
    P = aggregate(maps, [coarse, fine], fine)
    assert P.shape == (fine[0] * fine[1],) * 2
    torch.testing.assert_close(P.sum(1), torch.ones(len(P), dtype=P.dtype))
    assert P.min() >= 0


def test_levels_weigh_by_their_side() -> None:
    one_patch, four_patches = torch.ones(1, 1), torch.eye(4)
    P = aggregate([one_patch, four_patches], [(1, 1), (2, 2)], (2, 2))
    torch.testing.assert_close(P, torch.full((4, 4), 1 / 12) + torch.eye(4) * 2 / 3)


def test_targets_are_interpolated_and_sources_repeated() -> None:
    P = aggregate([torch.eye(2)], [(1, 2)], (1, 4))
    from_the_left = torch.tensor([1, 0.75, 0.25, 0]) / 2
    torch.testing.assert_close(P, torch.stack([from_the_left] * 2 + [from_the_left.flip(0)] * 2))


@given(grids, grids, st.sampled_from(["one-hot", "uniform", "zero", "tiny", "huge", "half"]))
def test_extreme_maps_are_distributions(map_grid: tuple[int, int], grid: tuple[int, int], kind: str) -> None:
    n = map_grid[0] * map_grid[1]
    weights = {
        "one-hot": torch.eye(n),
        "uniform": torch.full((n, n), 1 / n),
        "zero": torch.zeros(n, n),
        "tiny": torch.full((n, n), 1e-45),
        "huge": torch.eye(n) * 3e38,
        "half": torch.full((n, n), 60000, dtype=torch.float16),
    }[kind]
    P = aggregate([weights, torch.zeros(1, 1)], [map_grid, (1, 1)], grid)
    assert P.dtype == torch.float32
    assert P.min() >= 0
    torch.testing.assert_close(P.sum(1), torch.ones(len(P)))


def test_a_row_of_zeros_becomes_uniform() -> None:
    weights = torch.tensor([[0.0, 0.0], [0.0, 2.0]])
    torch.testing.assert_close(aggregate([weights], [(1, 2)], (1, 2)), torch.tensor([[0.5, 0.5], [0.0, 1.0]]))
    torch.testing.assert_close(aggregate([weights], [(1, 2)], (1, 4))[:2], torch.full((2, 4), 0.25))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -0.5])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_attention_out_of_range_is_refused(value: float, dtype: torch.dtype) -> None:
    weights = torch.eye(4, dtype=dtype)
    weights[1, 2] = value
    with pytest.raises(SegmentationError, match="finite and not negative"):
        aggregate([weights, torch.eye(1, dtype=dtype)], [(2, 2), (1, 1)], (2, 2))


@given(st.integers(1, 12), st.integers(1, 4), st.integers(1, 4), st.integers(0, 1000))
def test_walks_add_up(nodes: int, first: int, second: int, seed: int) -> None:
    P = random_walk(nodes, seed)
    torch.testing.assert_close(walk(P, first + second), walk(P, first) @ walk(P, second))
    torch.testing.assert_close(walk(P, first).sum(1), torch.ones(nodes, dtype=P.dtype))


def test_a_walk_without_a_step_is_refused() -> None:
    with pytest.raises(SegmentationError, match="at least 1 step, not 0"):
        walk(torch.eye(2), 0)


@pytest.mark.parametrize(
    ("maps", "grids", "message"),
    [
        ([], [], "at least one level"),
        ([torch.eye(4)], [(1, 3)], r"\(4, 4\) does not fit a grid 1×3"),
        ([torch.eye(4)], [(2, 2), (1, 1)], "1 attention maps do not fit 2 grids: pass one grid for each map"),
    ],
)
def test_maps_that_do_not_fit_are_refused(maps: list[Tensor], grids: list[tuple[int, int]], message: str) -> None:
    with pytest.raises(SegmentationError, match=message):
        aggregate(maps, grids, (2, 2))
