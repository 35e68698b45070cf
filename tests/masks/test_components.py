import numpy as np
from hypothesis import given

from tests.builders.masks import masks
from walkcut.masks.components import components


def test_the_largest_part_comes_first_and_of_equal_ones_the_upper() -> None:
    mask = np.array([[1, 0, 0, 1], [0, 0, 1, 1], [1, 0, 0, 0]], bool)
    assert [np.argwhere(part).tolist() for part in components(mask)] == [
        [[0, 3], [1, 2], [1, 3]], [[0, 0]], [[2, 0]],
    ]  # fmt: skip


def test_an_empty_mask_has_no_parts() -> None:
    assert components(np.zeros((2, 3), bool)) == []


@given(masks)
def test_the_parts_make_up_the_mask(mask: np.ndarray) -> None:
    parts = components(mask)
    assert np.sum(parts, axis=0, initial=0, where=True).max(initial=0) <= 1 if parts else not mask.any()
    assert (np.any([np.zeros_like(mask), *parts], axis=0) == mask).all()
    assert all(len(components(part)) == 1 for part in parts)
