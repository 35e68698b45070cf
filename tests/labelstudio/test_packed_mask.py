"""Regions hold their masks as bits of a bounding box, and give them back unchanged."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from tests.builders.memory import traced
from walkcut.labelstudio.predictions import Region

MASKS = arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=20), elements=st.booleans())


@given(MASKS)
def test_a_mask_comes_back_unchanged(mask: np.ndarray) -> None:
    region = Region(mask, "A")
    for copy in (region, replace(region, label="B"), pickle.loads(pickle.dumps(region))):
        assert copy.mask.dtype == np.bool_
        assert copy.mask.shape == mask.shape
        assert (copy.mask == mask).all()


def test_a_mask_that_is_read_may_be_changed_without_changing_the_region() -> None:
    region = Region(np.eye(3, dtype=bool), "A")
    region.mask[:] = True
    assert region.mask.sum() == 3


def test_a_region_cannot_be_given_another_mask() -> None:
    with pytest.raises(AttributeError, match="cannot assign"):
        Region(np.eye(3, dtype=bool), "A").mask = np.ones((3, 3), bool)  # type: ignore[misc]


def test_regions_of_a_partition_take_a_sixth_of_a_mask_together() -> None:
    labels = np.arange(40).reshape(5, 8).repeat(200, 0).repeat(200, 1)
    held, peak = traced(lambda: [Region(labels == label, "A") for label in range(40)])
    assert held < labels.size / 6
    assert peak < 3 * labels.size
