"""Fuzz tests of the reader of tree files."""

import io

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays, from_dtype

from tests.builders.fuzzing import Parser, fuzz_tests, mutated
from tests.builders.trees import ROW, random_tree
from walkcut.errors import TreeFileError
from walkcut.hierarchy.cut_tree import CutTree
from walkcut.hierarchy.granularity import Level, Segments, Threshold, Walk

TREES = [ROW.to_bytes(), random_tree(0).to_bytes()]
GRANULARITIES = (Level.AUTO, Level.COARSE, Level.FINE, Segments(2), Threshold(0.4), Walk(2))


def stored(**changed: np.ndarray) -> bytes:
    """Return a tree file with some of its arrays replaced."""
    with np.load(io.BytesIO(TREES[1]), allow_pickle=False) as file:
        kept = {name: file[name] for name in file.files}
    written = io.BytesIO()
    np.savez(written, **(kept | changed))
    return written.getvalue()


DTYPES = st.sampled_from(
    ["?", "i1", "<i8", ">i8", "u1", "<u2", ">u2", "u8", "f2", "<f4", ">f4", "f8", "g", "c8", "U2", "S2", "M8[s]"]
)
ODD_ARRAYS = arrays(DTYPES, array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5))
ARRAY_NAMES = ["format", "leaves", "merges", "costs", "is_cut", "levels", "degradations", "scores", "gram", "patches",
               "descriptors"]  # fmt: skip
NAMES = st.sampled_from(ARRAY_NAMES)
ODD_TREES = st.dictionaries(NAMES, ODD_ARRAYS, min_size=1, max_size=3).map(lambda changed: stored(**changed))


@st.composite
def recast(draw: st.DrawFn) -> bytes:
    """Draw a tree file with arrays of other types, or other numbers in them."""
    with np.load(io.BytesIO(TREES[1]), allow_pickle=False) as file:
        stored_arrays = {name: file[name] for name in file.files}
    changed = {}
    for name in draw(st.lists(st.sampled_from(sorted(stored_arrays)), min_size=1, max_size=2)):
        dtype = draw(DTYPES.filter(lambda dtype: dtype[0] not in "SM"))
        array = stored_arrays[name].astype(
            dtype if draw(st.booleans()) and stored_arrays[name].dtype.kind != "U" else None
        )
        if array.size and draw(st.booleans()):
            array.flat[draw(st.integers(0, array.size - 1))] = draw(st.sampled_from([0, 1]) | from_dtype(array.dtype))
        changed[name] = array
    return stored(**changed)


def read_tree(data: bytes) -> None:
    tree = CutTree.from_bytes(data)
    for granularity in GRANULARITIES:
        labels = tree.labels(granularity)
        assert labels.shape == tree.size
        tree.distinctness(granularity)


@pytest.mark.parametrize("sample", TREES)
def test_samples_are_read(sample: bytes) -> None:
    """Otherwise the fuzz tests would find nothing."""
    read_tree(sample)


PARSERS = [
    Parser("tree files", read_tree, mutated(TREES) | st.binary(), (TreeFileError,)),
    Parser("odd trees", read_tree, ODD_TREES, (TreeFileError,)),
    Parser("recast trees", read_tree, recast(), (TreeFileError,), 400),
]
test_a_parser_gives_a_value_or_its_error, test_a_parser_gives_a_value_or_its_error_at_length = fuzz_tests(PARSERS)
