import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage

from walkcut.hierarchy.colour_graph import colour_graph

labels = arrays.arrays(np.int64, arrays.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(0, 3))


def connected(values: np.ndarray) -> np.ndarray:
    """Label each connected component of each value, from 0."""
    parts, count = np.zeros(values.shape, np.int64), 0
    for value in np.unique(values):
        components, found = ndimage.label(values == value)
        parts += np.where(components > 0, components + count - 1, 0)
        count += found
    return parts


@given(labels)
def test_six_colours_keep_connected_neighbours_apart(values: np.ndarray) -> None:
    parts = connected(values)
    colours = colour_graph(parts, 6)[parts]
    for axis in (0, 1):
        assert ((np.diff(colours, axis=axis) != 0) | (np.diff(parts, axis=axis) == 0)).all()


def test_a_single_colour_is_given_to_all() -> None:
    assert colour_graph(np.array([[0, 1, 2]]), 1).tolist() == [0, 0, 0]
