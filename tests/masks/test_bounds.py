import numpy as np
from hypothesis import given

from tests.builders.masks import mask_of, masks
from walkcut.masks.bounds import bounding_box


def test_the_box_of_a_mask() -> None:
    assert bounding_box(mask_of("....", "..#.", ".#..")) == (slice(1, 3), slice(1, 3))


@given(masks)
def test_no_pixel_is_outside_and_each_side_touches_one(mask: np.ndarray) -> None:
    cut = mask[bounding_box(mask)]
    assert cut.sum() == mask.sum()
    assert not cut.size or all(side.any() for side in (cut[0], cut[-1], cut[:, 0], cut[:, -1]))
