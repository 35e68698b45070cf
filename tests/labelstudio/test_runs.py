import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from walkcut.labelstudio.runs import mask_from_runs, run_lengths


@pytest.mark.parametrize(
    ("pixels", "lengths"),
    [("#", [0, 1]), (".", [1]), ("..##.", [2, 2, 1]), ("##.#", [0, 2, 1, 1])],
)
def test_runs_alternate_and_begin_outside(pixels: str, lengths: list[int]) -> None:
    assert run_lengths(np.array([pixel == "#" for pixel in pixels])).tolist() == lengths


@given(arrays.arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_a_mask_is_restored_from_its_runs(mask: np.ndarray) -> None:
    restored = mask_from_runs(run_lengths(mask.ravel()), mask.shape)
    assert restored.dtype == np.bool_
    assert restored.tolist() == mask.tolist()
