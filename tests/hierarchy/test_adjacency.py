from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage

from walkcut.hierarchy.adjacency import colour_graph, facing_counts, label_adjacency

label_maps = arrays.arrays(
    np.uint16, arrays.array_shapes(min_dims=2, max_dims=2, max_side=7), elements=st.integers(0, 4)
)
large_maps = arrays.arrays(
    np.int64, arrays.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(0, 3)
)


def test_borders_by_hand() -> None:
    labels = np.array([[0, 0, 2], [1, 1, 2]])
    adjacency = label_adjacency(labels, np.array([[1.0, 2, 4], [3, 0, 6]]))
    assert adjacency.pairs.tolist() == [[0, 1], [0, 2], [1, 2]]
    assert adjacency.lengths.tolist() == [2, 1, 1]
    assert adjacency.totals.tolist() == [(1 + 3) / 2 + (2 + 0) / 2, (2 + 4) / 2, (0 + 6) / 2]


def test_a_single_label_has_no_border() -> None:
    adjacency = label_adjacency(np.zeros((3, 4), np.int64))
    assert (adjacency.pairs.shape, adjacency.lengths.shape, adjacency.totals.shape) == ((0, 2), (0,), (0,))


def test_labels_face_each_other_across_a_strip() -> None:
    labels = np.array([[0, 0, 1, 2, 2]]).repeat(3, 0)
    assert facing_counts(labels, 2)[0].tolist() == [0, 3 + 2 + 2, 3]
    assert facing_counts(labels, 2)[0, 2] == np.count_nonzero(labels[:, 1] == 0)


@given(label_maps, st.integers(1, 5))
def test_facing_pixels_are_counted_along_eight_directions(labels: np.ndarray, reach: int) -> None:
    slant = round(reach / 2**0.5)
    pairs: Counter[tuple[int, int]] = Counter()
    for (y, x), label in np.ndenumerate(labels):
        for down, right in ((reach, 0), (0, reach), (slant, slant), (slant, -slant)):
            if y + down < labels.shape[0] and 0 <= x + right < labels.shape[1]:
                other = labels[y + down, x + right]
                pairs.update({(int(label), int(other)), (int(other), int(label))} if label != other else ())
    counts = facing_counts(labels, reach)
    assert {pair: counts[pair] for pair in zip(*(axis.tolist() for axis in counts.nonzero()), strict=True)} == pairs


@given(label_maps)
def test_borders_are_those_of_all_pixel_sides(labels: np.ndarray) -> None:
    sides: Counter[tuple[int, int]] = Counter()
    for (y, x), label in np.ndenumerate(labels):
        for neighbour in [*labels[y + 1 : y + 2, x].tolist(), *labels[y, x + 1 : x + 2].tolist()]:
            if label != neighbour:
                sides[min(label, neighbour), max(label, neighbour)] += 1
    adjacency = label_adjacency(labels)
    assert dict(zip(map(tuple, adjacency.pairs.tolist()), adjacency.lengths.tolist(), strict=True)) == sides
    assert adjacency.pairs.tolist() == sorted(adjacency.pairs.tolist())


def connected(values: np.ndarray) -> np.ndarray:
    """Label each connected component of each value, from 0."""
    parts, count = np.zeros(values.shape, np.int64), 0
    for value in np.unique(values):
        components, found = ndimage.label(values == value)
        parts += np.where(components > 0, components + count - 1, 0)
        count += found
    return parts


@given(large_maps)
def test_six_colours_keep_connected_neighbours_apart(values: np.ndarray) -> None:
    parts = connected(values)
    colours = colour_graph(parts, 6)[parts]
    for axis in (0, 1):
        assert ((np.diff(colours, axis=axis) != 0) | (np.diff(parts, axis=axis) == 0)).all()


def test_a_single_colour_is_given_to_all() -> None:
    assert colour_graph(np.array([[0, 1, 2]]), 1).tolist() == [0, 0, 0]
