import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import normalize

from walkcut.errors import SegmentationError
from walkcut.hierarchy.hierarchy import renumber
from walkcut.segmentation.algorithms.linkage import average_linkage


def test_merges_by_hand() -> None:
    # Directions of 0°, 90°, 20° and 120°; lengths count for nothing.
    angles = torch.tensor([0, 90, 20, 120], dtype=torch.float64).deg2rad()
    means = torch.tensor([[1.0], [5.0], [2.0], [0.1]]) * torch.stack([angles.cos(), angles.sin()], 1)
    hierarchy = average_linkage(means)
    assert hierarchy.merges.tolist() == [[0, 2], [1, 3], [4, 5]]
    apart = [math.cos(math.radians(degrees)) for degrees in (90, 70, 120, 100)]
    expected = [math.cos(math.radians(20)), math.cos(math.radians(30)), max(0.0, sum(apart) / 4)]
    np.testing.assert_allclose(hierarchy.costs, expected, atol=1e-12)
    assert hierarchy.is_cut.tolist() == [True] * 3


def test_linkage_is_average() -> None:
    angles = torch.tensor([0, 10, 60], dtype=torch.float64).deg2rad()
    costs = average_linkage(torch.stack([angles.cos(), angles.sin()], 1)).costs
    assert costs[1] == pytest.approx((math.cos(math.radians(60)) + math.cos(math.radians(50))) / 2)


def test_one_segment_has_no_merges() -> None:
    hierarchy = average_linkage(torch.ones(1, 3))
    assert hierarchy.leaf_count == 1
    assert hierarchy.merges.shape == (0, 2)
    assert hierarchy.cluster_of(hierarchy.is_cut).tolist() == [0]


def test_opposite_means_cost_nothing_and_equal_ones_cost_one() -> None:
    hierarchy = average_linkage(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [3.0, 0.0]]))
    assert hierarchy.merges.tolist() == [[0, 2], [1, 3]]
    assert hierarchy.costs.tolist() == [1, 0]


@given(st.integers(2, 12), st.integers(1, 4), st.integers(0, 1000))
def test_the_hierarchy_is_valid(segments: int, channels: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    means = torch.randint(-1, 2, (segments, channels), generator=generator).float()  # zeros and ties abound
    hierarchy, again = average_linkage(means), average_linkage(means.clone())
    assert sorted(hierarchy.merges.ravel().tolist()) == list(range(2 * segments - 2))
    assert (hierarchy.merges.max(1) < np.arange(segments - 1) + segments).all()
    assert (np.diff(hierarchy.costs) <= 0).all()
    assert ((hierarchy.costs >= 0) & (hierarchy.costs <= 1)).all()
    assert hierarchy.merges.tolist() == again.merges.tolist()
    nearest = (normalize(means.double()) @ normalize(means.double()).T).fill_diagonal_(-1).max()
    assert hierarchy.costs[0] == pytest.approx(max(0.0, float(nearest)))
    assert renumber(hierarchy.cluster_of(~hierarchy.is_cut)).tolist() == list(range(segments))


def test_means_that_are_not_finite_are_refused() -> None:
    with pytest.raises(SegmentationError, match="mean features must be finite"):
        average_linkage(torch.tensor([[1.0], [torch.nan]]))
