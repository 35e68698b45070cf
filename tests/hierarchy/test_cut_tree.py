import io
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tests.builders.memory import traced
from tests.builders.trees import LEVELS, ROW, random_tree
from walkcut.errors import SegmentationError, TreeFileError
from walkcut.hierarchy.cut_tree import CutTree, build_tree
from walkcut.hierarchy.granularity import Level, Segments, Threshold, Walk
from walkcut.hierarchy.hierarchy import Hierarchy

few = settings(max_examples=20)


def test_its_bytes_are_those_of_its_arrays() -> None:
    assert ROW.nbytes == 5 * 2 + 6 * 8 + 3 * 8 + 3 + 4 * 2 * 2
    assert replace(ROW, descriptors=None).nbytes == 5 * 2 + 6 * 8 + 3 * 8 + 3


@pytest.mark.parametrize(
    ("granularity", "labels"),
    [
        (Level.AUTO, [0, 0, 0, 1, 1]),
        (Level.COARSE, [0, 0, 0, 0, 0]),
        (Level.MEDIUM, [0, 0, 0, 1, 1]),
        (Level.FINE, [0, 0, 0, 1, 2]),
        (Segments(1), [0, 0, 0, 0, 0]),
        (Segments(4), [0, 1, 1, 2, 3]),
        (Segments(99), [0, 1, 1, 2, 3]),
        (Threshold(0.05), [0, 0, 0, 0, 0]),
        (Threshold(0.5), [0, 0, 0, 1, 2]),
        (Threshold(0.9), [0, 1, 1, 2, 3]),
        (Walk(1), [0, 0, 0, 1, 1]),
        (Walk(2), [0, 0, 0, 0, 0]),
    ],
    ids=str,
)
def test_a_granularity_picks_its_merges(granularity: Level | Segments | Threshold, labels: list[int]) -> None:
    assert ROW.labels(granularity).tolist() == [labels]
    assert ROW.segment_count(granularity) == max(labels) + 1


@given(arrays(np.uint16, st.tuples(st.integers(1, 200), st.integers(1, 5)), elements=st.integers(0, 9)))
def test_leaves_are_numbered_by_their_first_pixel(pixels: np.ndarray) -> None:
    merges = np.array([[2 * row, 2 * row + 1] for row in range(9)])
    tree = build_tree(pixels, Hierarchy(merges, np.linspace(0.9, 0.1, 9), np.ones(9, bool)), LEVELS)
    order = list(dict.fromkeys(pixels.ravel().tolist()))
    assert tree.leaves.ravel().tolist() == [order.index(leaf) for leaf in pixels.ravel().tolist()]
    assert tree.hierarchy.leaf_count == len(order)


def test_trees_and_labels_of_large_images_are_made_without_64_bits_for_each_pixel() -> None:
    pixels = np.arange(4, dtype=np.uint16).repeat(500).repeat(1500).reshape(2000, 1500)
    held, peak = traced(lambda: build_tree(pixels, ROW.hierarchy, LEVELS))
    assert 2 * pixels.size <= held <= peak < 3 * pixels.size
    tree = build_tree(pixels, ROW.hierarchy, LEVELS)
    assert traced(lambda: tree.labels(Level.FINE))[1] < 3 * pixels.size


def test_a_longer_walk_makes_cuts_more_expensive_than_the_rule_accepts() -> None:
    # The rule accepts up to 0.3: 1 - (1 - 0.1)² = 0.19, but not 1 - (1 - 0.3)² = 0.51 or 1 - (1 - 0.1)⁴ = 0.34.
    merges, costs = ROW.hierarchy.merges, np.array([0.9, 0.3, 0.1])
    tree = replace(ROW, hierarchy=Hierarchy(merges, costs, np.array([False, True, True])))
    assert [tree.segment_count(Walk(steps)) for steps in (1, 2, 3, 4)] == [3, 2, 2, 1]


def test_a_walk_makes_no_cut_that_the_rule_would_not() -> None:
    costs = np.array([0.3, 0.3, 0.3])
    tree = replace(ROW, hierarchy=Hierarchy(ROW.hierarchy.merges, costs, np.array([False, False, True])))
    assert tree.segment_count(Walk(1)) == tree.segment_count(Level.AUTO) == 2


@few
@given(st.integers(0, 1000), st.integers(1, 63))
def test_longer_walks_are_never_finer_and_one_step_is_automatic(seed: int, steps: int) -> None:
    tree = random_tree(seed)
    assert tree.labels(Walk(1)).tolist() == tree.labels(Level.AUTO).tolist()
    assert tree.segment_count(Walk(steps + 1)) <= tree.segment_count(Walk(steps))


def test_descriptors_are_means_over_pixels_not_leaves() -> None:
    # Leaves of one and two pixels: means (1/3, 2/3) and (1/8, 7/8).
    two = ROW.segment_descriptors(ROW.segment_of(Level.MEDIUM))
    assert two**2 == pytest.approx(np.array([[1 / 3, 2 / 3], [1 / 8, 7 / 8]]), abs=1e-3)
    assert ROW.segment_descriptors(np.array([0, 0, 1, 1])).tolist() == two.tolist()
    assert ROW.part_descriptors(np.array([[1, 1, 0, 0]]))[0] == pytest.approx([0.5**0.5, 0.5**0.5], abs=1e-3)


def test_a_tree_without_descriptors_is_refused() -> None:
    with pytest.raises(SegmentationError, match="no descriptors of its segments: segment the image again"):
        replace(ROW, descriptors=None).segment_descriptors(ROW.segment_of(Level.AUTO))


def test_distinctness_is_one_less_the_cost() -> None:
    assert ROW.distinctness(Segments(3)).tolist() == pytest.approx([0.9, 0.5, 0.5])
    assert ROW.distinctness(Segments(1)).tolist() == [1]


@few
@given(st.integers(0, 1000))
def test_levels_are_nested_pixel_by_pixel(seed: int) -> None:
    tree = random_tree(seed)
    levels = [tree.labels(Segments(count)) for count in range(1, tree.hierarchy.leaf_count + 1)]
    for coarse, fine in pairwise(levels):
        assert len(np.unique(np.stack([coarse, fine]).reshape(2, -1), axis=1).T) == fine.max() + 1 == coarse.max() + 2


@few
@given(st.integers(0, 1000))
def test_a_threshold_makes_all_cuts_up_to_its_cost(seed: int) -> None:
    tree = random_tree(seed)
    for cost in tree.hierarchy.costs:
        assert tree.segment_count(Threshold(float(cost))) == 1 + (tree.hierarchy.costs <= cost).sum()


@few
@given(st.integers(0, 1000))
def test_a_stored_tree_gives_the_same_segments(seed: int) -> None:
    tree = random_tree(seed)
    tree = replace(
        tree, descriptors=np.random.default_rng(seed).random((tree.hierarchy.leaf_count, 3)).astype(np.float16)
    )
    stored = CutTree.from_bytes(tree.to_bytes())
    three = tree.segment_of(Segments(3))
    assert stored.segment_descriptors(three).tolist() == tree.segment_descriptors(three).tolist()
    for granularity in (Level.AUTO, Level.FINE, Segments(5), Threshold(0.97)):
        assert stored.labels(granularity).tolist() == tree.labels(granularity).tolist()
    assert stored.levels == tree.levels


def test_leaves_without_a_pixel_are_dropped() -> None:
    tree = build_tree(np.array([[3, 3, 0]]), ROW.hierarchy, LEVELS)
    assert tree.leaves.tolist() == [[0, 0, 1]]
    assert tree.hierarchy.merges.tolist() == [[1, 0]]
    assert tree.hierarchy.costs.tolist() == [0.1]


def file_of(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()


def test_anything_but_a_tree_file_is_refused() -> None:
    for data in (b"", b"no tree", file_of(leaves=np.zeros(3)), file_of(evil=np.array([{}]))):
        with pytest.raises(TreeFileError, match="not a cut tree"):
            CutTree.from_bytes(data)


@pytest.mark.parametrize("version", [3, 99])
def test_a_file_of_another_version_is_refused(version: int) -> None:
    with np.load(io.BytesIO(ROW.to_bytes())) as file:
        arrays = {name: file[name] for name in file.files}
    with pytest.raises(TreeFileError, match="this version"):
        CutTree.from_bytes(file_of(**(arrays | {"format": np.array(version)})))


@pytest.mark.parametrize(
    "damage",
    [
        {"merges": np.array([[0, 1], [2, 3], [4, 4]])},
        {"merges": np.array([[0, 1], [2, 5], [4, 3]])},
        {"costs": np.array([0.1, 0.5, 0.9])},
        {"costs": np.array([0.1])},
        {"leaves": np.array([[0, 9]], np.uint16)},
        {"leaves": np.zeros((0, 3), np.uint16)},
        {"levels": np.array([1, 2])},
        {"descriptors": np.zeros((3, 2), np.float16)},
        {"descriptors": np.full((4, 2), np.nan, np.float16)},
    ],
    ids=lambda damage: next(iter(damage)),
)
def test_a_tree_that_contradicts_itself_is_refused(damage: dict[str, np.ndarray]) -> None:
    with np.load(io.BytesIO(ROW.to_bytes())) as file:
        arrays = {name: file[name] for name in file.files}
    with pytest.raises(TreeFileError, match="contradict"):
        CutTree.from_bytes(file_of(**(arrays | damage)))


def test_damaged_bytes_are_refused_or_do_no_harm() -> None:
    data = bytearray(random_tree(0).to_bytes())
    refused = 0
    for index in range(0, len(data), 7):
        damaged = bytes(data[:index]) + bytes([data[index] ^ 0x5A]) + bytes(data[index + 1 :])
        for variant in (damaged, bytes(data[:index])):
            try:
                CutTree.from_bytes(variant).labels(Level.AUTO)
            except TreeFileError:
                refused += 1
    assert refused >= len(range(0, len(data), 7)), "a file that was cut off is never a tree"


def test_a_bomb_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("walkcut.hierarchy.cut_tree._MAX_BYTES", 10)
    with pytest.raises(TreeFileError, match="unpacks to over"):
        CutTree.from_bytes(ROW.to_bytes())


def test_trees_are_values() -> None:
    assert replace(ROW).size == (1, 5)
