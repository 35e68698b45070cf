from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from walkcut.hierarchy.cut_tree import CutTree
from walkcut.hierarchy.granularity import Level
from walkcut.hierarchy.hierarchy import Hierarchy
from walkcut.interactive.leaf_walk import probability_to_meet


def chain(count: int) -> CutTree:
    """A row of leaves, one pixel each, without descriptors."""
    merges = np.array([[0, 1], *([leaf, count + leaf - 2] for leaf in range(2, count))])
    hierarchy = Hierarchy(merges, np.zeros(count - 1), np.zeros(count - 1, np.bool_))
    return CutTree(np.arange(count, dtype=np.uint16)[None], hierarchy, dict.fromkeys(Level, 1))


def only(count: int, *leaves: int) -> np.ndarray:
    return np.isin(np.arange(count), leaves)


def test_on_a_row_of_leaves_the_probability_falls_evenly() -> None:
    met = probability_to_meet(chain(5), only(5, 0), only(5, 4))
    assert met == pytest.approx([1, 0.75, 0.5, 0.25, 0], abs=1e-6)


def test_a_walk_seldom_steps_to_what_looks_different() -> None:
    alike = np.array([[1, 0], [1, 0], [0, 1]], np.float16)
    met = probability_to_meet(replace(chain(3), descriptors=alike), only(3, 0), only(3, 2))
    # The distance of the descriptors is the root of 2: steps weigh 1 and exp(-16).
    assert met[1] == pytest.approx(1 / (1 + np.exp(-16)), abs=1e-6)


def test_a_longer_border_is_crossed_more_often() -> None:
    tree = replace(chain(3), leaves=np.array([[0, 1, 1, 1], [0, 1, 2, 1], [0, 1, 1, 1]], np.uint16))
    met = probability_to_meet(tree, only(3, 0), only(3, 2))
    assert met[1] == pytest.approx(3 / (3 + 4), abs=1e-6)


def test_what_can_meet_neither_has_probability_0() -> None:
    tree = chain(4)
    assert probability_to_meet(tree, only(4), only(4, 0)).tolist() == [0, 0, 0, 0]
    assert probability_to_meet(tree, only(4), only(4)).tolist() == [0, 0, 0, 0]


@given(st.integers(0, 99), st.integers(2, 6), st.integers(2, 6))
def test_probabilities_are_averages_of_those_around(seed: int, height: int, width: int) -> None:
    count = height * width
    tree = replace(chain(count), leaves=np.arange(count, dtype=np.uint16).reshape(height, width))
    kind = np.random.default_rng(seed).integers(0, 3, count)
    kind[:2] = 0, 1
    met = probability_to_meet(tree, kind == 0, kind == 1).reshape(height, width)
    padded, exists = np.pad(met, 1), np.pad(np.ones_like(met), 1)
    sums, counts = (grid[:-2, 1:-1] + grid[2:, 1:-1] + grid[1:-1, :-2] + grid[1:-1, 2:] for grid in (padded, exists))
    free = kind.reshape(height, width) == 2
    assert met[free] == pytest.approx((sums / counts)[free], abs=1e-6)
