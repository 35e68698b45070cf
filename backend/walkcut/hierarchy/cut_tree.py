"""The cut tree of one image: its segments at every granularity."""

import io
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Float16, Float32, Float64, Int64, Shaped, UInt16
from numpy.typing import NDArray

from walkcut.errors import SegmentationError, TreeFileError
from walkcut.hierarchy.descriptors import leaf_centroids, union_descriptors
from walkcut.hierarchy.granularity import Granularity, Level, Segments, Threshold, Walk
from walkcut.hierarchy.hierarchy import Hierarchy, renumber

_FORMAT = 4
_MAX_BYTES = 1 << 30  # of an unpacked tree file
_MAX_LEAVES = 1 << 16
_ROWS = 64  # of pixels, looked up at a time
_NAMED_LEVELS = (Level.COARSE, Level.MEDIUM, Level.FINE)
_ARRAYS = {  # kind of dtype and number of dimensions
    "format": ("i", 0),
    "leaves": ("u", 2),
    "merges": ("i", 2),
    "costs": ("f", 1),
    "is_cut": ("b", 1),
    "levels": ("i", 1),
    "degradations": ("U", 1),
}
_LAYOUTS = (_ARRAYS, _ARRAYS | {"descriptors": ("f", 2)})
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_WRONG_VERSION = "not a cut tree of this version of walkcut: segment the image again"
_ARCHIVE_ERRORS = (zipfile.BadZipFile, zlib.error, OSError, EOFError, KeyError, RuntimeError)  # the last: encrypted
_ARRAY_ERRORS = (TypeError, ValueError, MemoryError, OverflowError)  # the last two: shapes too large


@dataclass(frozen=True)
class CutTree:
    """The segments of one image at every granularity.

    Attributes:
        leaves: the leaf of each pixel, at the image's full size, numbered by first pixel
        hierarchy: how the leaves merge
        levels: the number of segments at coarse, medium and fine
        degradations: quality reductions due to memory, as user messages
        descriptors: the mean features of each leaf, from which `segment_descriptors` are computed

    >>> hierarchy = Hierarchy(np.array([[1, 2], [0, 3]]), np.array([0.8, 0.3]), np.array([False, True]))
    >>> levels = {Level.COARSE: 1, Level.MEDIUM: 2, Level.FINE: 3}
    >>> tree = CutTree(np.array([[0, 0, 1, 2]], np.uint16), hierarchy, levels)
    >>> tree.labels(Level.AUTO).tolist()
    [[0, 0, 1, 1]]
    >>> tree.segment_count(Threshold(0.9))
    3
    """

    leaves: UInt16[np.ndarray, "y x"]
    hierarchy: Hierarchy
    levels: Mapping[Level, int]
    degradations: tuple[str, ...] = ()
    descriptors: Float16[np.ndarray, "k c"] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the image, in pixels."""
        return self.leaves.shape[0], self.leaves.shape[1]

    @property
    def nbytes(self) -> int:
        """Size of its arrays in bytes, without the cached `areas` and `centroids`."""
        hierarchy = self.hierarchy
        arrays = (self.leaves, hierarchy.merges, hierarchy.costs, hierarchy.is_cut, self.descriptors)
        return sum(array.nbytes for array in arrays if array is not None)

    @cached_property
    def areas(self) -> Int64[np.ndarray, " k"]:
        """The number of pixels of each leaf."""
        return np.bincount(self.leaves.ravel(), minlength=self.hierarchy.leaf_count)

    @cached_property
    def centroids(self) -> Float64[np.ndarray, "k 2"]:
        """The y and x of each leaf's centre, as fractions of the height and the width."""
        return leaf_centroids(self.leaves)

    def segment_areas(self, segment_of: Int64[np.ndarray, " k"]) -> Int64[np.ndarray, "s k"]:
        """Return the area of segments `0 … s - 1` in each leaf, in pixels, given each leaf's segment."""
        return np.asarray((segment_of == np.arange(int(segment_of.max()) + 1)[:, None]) * self.areas)

    def labels(self, granularity: Granularity) -> UInt16[np.ndarray, "y x"]:
        """Return the segment of each pixel, numbered from 0 by first pixel; segments are unions of leaves."""
        return self.at_pixels(self.segment_of(granularity).astype(np.uint16))

    def at_pixels(self, values: Shaped[np.ndarray, " k"]) -> Shaped[np.ndarray, "y x"]:
        """Return the value of each pixel, given one for each leaf."""
        return _look_up(values, self.leaves)

    def segment_of(self, granularity: Granularity) -> Int64[np.ndarray, " k"]:
        """Return the segment of each leaf, numbered as in `labels`."""
        return renumber(self.hierarchy.cluster_of(self._merged(granularity)))

    def segment_count(self, granularity: Granularity) -> int:
        """Return the number of segments."""
        return self.hierarchy.leaf_count - int(self._merged(granularity).sum())

    def distinctness(self, granularity: Granularity) -> Float64[np.ndarray, " s"]:
        """Return how clearly each segment differs from its sibling, in [0, 1]: 1 less the cost of the cut."""
        cluster_of = self.hierarchy.cluster_of(self._merged(granularity))
        _, first = np.unique(cluster_of, return_index=True)
        return 1 - self.hierarchy.merge_costs()[cluster_of[np.sort(first)]].clip(0, 1)

    def segment_descriptors(self, segment_of: Int64[np.ndarray, " k"]) -> Float32[np.ndarray, "s c"]:
        """Return the descriptors of segments `0 … s - 1`, given each leaf's segment; see `part_descriptors`."""
        return self.part_descriptors(self.segment_areas(segment_of))

    def part_descriptors(self, areas: Int64[np.ndarray, "s k"]) -> Float32[np.ndarray, "s c"]:
        """Return unit-length descriptors of parts of the image, given their area in each leaf, in pixels.

        Compare them by Euclidean distance, also across trees of one segmenter version. Raises `SegmentationError` for
        a tree without descriptors.
        """
        if self.descriptors is None:
            raise SegmentationError("this tree has no descriptors of its segments: segment the image again")
        return union_descriptors(self.descriptors, areas)

    def part_layouts(self, areas: Int64[np.ndarray, "s k"]) -> Float64[np.ndarray, "s 3"]:
        """Return the y and x of the centre and the area of parts of the image, as fractions of the image's.

        `areas` holds the area of each part in each leaf, in pixels; a part lies at the centre of its leaves.
        """
        totals = areas.sum(1, keepdims=True)
        return np.column_stack([areas @ self.centroids / totals, totals / self.leaves.size])

    def _merged(self, granularity: Granularity) -> Bool[np.ndarray, " m"]:
        """Return the rows of the hierarchy that are merged at this granularity."""
        costs, is_cut = self.hierarchy.costs, self.hierarchy.is_cut
        match granularity:
            case Level.AUTO:
                return ~is_cut
            case Threshold(tau):
                return costs > tau
            case Walk(steps):
                accepted = walk_eigenvalues(costs, 1)[is_cut].min(initial=1)
                return ~is_cut | (walk_eigenvalues(costs, steps) < accepted)
            case Segments(count):
                pass
            case level:
                count = self.levels[level]
        return np.arange(len(costs)) < self.hierarchy.leaf_count - count

    def to_bytes(self) -> bytes:
        """Return the tree as a compressed `.npz` file without pickled objects."""
        arrays: dict[str, NDArray[Any]] = {
            "format": np.array(_FORMAT),
            "leaves": self.leaves,
            "merges": self.hierarchy.merges,
            "costs": self.hierarchy.costs,
            "is_cut": self.hierarchy.is_cut,
            "levels": np.array([self.levels[level] for level in _NAMED_LEVELS]),
            "degradations": np.array(self.degradations, np.str_),
        }
        if self.descriptors is not None:
            arrays["descriptors"] = self.descriptors
        file = io.BytesIO()
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # numpy's stub takes the names for flags
        return file.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> "CutTree":
        """Read what `to_bytes` wrote. Raises `TreeFileError` for anything else, and never runs code from the file."""
        arrays = _read_arrays(data)
        _check_consistency(arrays)
        hierarchy = Hierarchy(arrays["merges"].astype(np.int64), arrays["costs"].astype(np.float64), arrays["is_cut"])
        levels = dict(zip(_NAMED_LEVELS, arrays["levels"].tolist(), strict=True))
        degradations = tuple(arrays["degradations"].tolist())
        descriptors = arrays["descriptors"].astype(np.float16) if "descriptors" in arrays else None
        return cls(arrays["leaves"].astype(np.uint16), hierarchy, levels, degradations, descriptors)


def walk_eigenvalues(costs: Float64[np.ndarray, " m"], steps: int) -> Float64[np.ndarray, " m"]:
    """Estimate the second eigenvalues after a walk of `steps` steps by `(1 - cost)^steps`, given the costs of one step.

    `P^k` has the eigenvectors of `P` and its eigenvalues to the k-th power (DWC 3.2), and a cut costs at least
    1 less the second eigenvalue of its graph (Shi & Malik 2000); the estimate takes this bound for the cost.
    On 12 images of BSDS500 val this leaves 8.4, 3.3 and 2.0 segments on average at 1, 2 and 3 steps; decomposing the
    longer walk instead leaves 8.4, 5.3 and 3.8.
    """
    return (1 - costs).clip(0) ** steps


def build_tree(leaves: Shaped[np.ndarray, "y x"], hierarchy: Hierarchy, levels: Mapping[Level, int]) -> CutTree:
    """Return the tree of an image, given the leaf of each pixel; leaves without a pixel are dropped."""
    first = _first_pixels(leaves)
    kept = np.argsort(first, kind="stable")[: np.count_nonzero(first < leaves.size)]
    rank = np.zeros(len(first), np.uint16)
    rank[kept] = np.arange(len(kept))
    return CutTree(_look_up(rank, leaves), hierarchy.pruned(kept), levels)


def _first_pixels(leaves: Shaped[np.ndarray, "y x"]) -> Int64[np.ndarray, " k"]:
    """Return the first pixel of each leaf in reading order, the number of pixels for leaves without one."""
    first = np.full(int(leaves.max()) + 1, leaves.size)
    pixels = np.arange(leaves.shape[1])
    for row in reversed(range(len(leaves))):
        first[leaves[row, ::-1]] = row * len(pixels) + pixels[::-1]  # the last of several assignments stays
    return first


def _look_up(table: Shaped[np.ndarray, " k"], labels: Shaped[np.ndarray, "y x"]) -> Shaped[np.ndarray, "y x"]:
    """Return `table[labels]`, for which NumPy would convert all labels to 64 bits at once."""
    result = np.empty(labels.shape, table.dtype)
    for top in range(0, len(labels), _ROWS):
        result[top : top + _ROWS] = table[labels[top : top + _ROWS]]
    return result


def _read_arrays(data: bytes) -> dict[str, NDArray[Any]]:
    """Return the arrays of a tree file, with dtypes and dimensions checked."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            arrays = {name: _read_array(archive, name) for name in _array_names(archive)}
    except (*_ARCHIVE_ERRORS, *_ARRAY_ERRORS) as error:
        raise TreeFileError(f"not a cut tree, or a damaged one ({error}): segment the image again") from error
    kinds = {name: (array.dtype.kind, array.ndim) for name, array in arrays.items()}
    if kinds not in _LAYOUTS or int(arrays["format"]) != _FORMAT:
        raise TreeFileError(_WRONG_VERSION)
    return arrays


def _array_names(archive: zipfile.ZipFile) -> list[str]:
    """Return the names of the arrays in an archive of the right layout, compression and size."""
    entries = archive.infolist()
    if sum(entry.file_size for entry in entries) > _MAX_BYTES:
        raise TreeFileError("not a cut tree: it unpacks to over 1 GiB. Segment the image again")
    names = [entry.filename.removesuffix(".npy") for entry in entries]
    if not any(sorted(names) == sorted(layout) for layout in _LAYOUTS):
        raise TreeFileError(_WRONG_VERSION)
    if any(entry.compress_type not in _COMPRESSIONS for entry in entries):
        raise TreeFileError("not a cut tree: its compression is unknown. Segment the image again")
    return names


def _read_array(archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    with archive.open(f"{name}.npy") as file:
        return np.lib.format.read_array(file, allow_pickle=False)  # type: ignore[no-untyped-call]


def _check_consistency(arrays: Mapping[str, NDArray[Any]]) -> None:
    """Raise `TreeFileError` where the arrays of a tree file contradict each other."""
    leaves, merges, costs = arrays["leaves"], arrays["merges"], arrays["costs"]
    rows, count = len(merges), len(merges) + 1
    descriptors = arrays.get("descriptors", np.zeros((count, 0)))
    is_consistent = (
        merges.shape == (rows, 2)
        and rows < _MAX_LEAVES
        and costs.shape == arrays["is_cut"].shape == (rows,)
        and sorted(merges.ravel().tolist()) == list(range(2 * rows))
        and bool((merges.max(1, initial=0) < np.arange(rows) + count).all())
        and bool(np.isfinite(costs).all())
        and bool((np.diff(costs) <= 0).all())
        and leaves.size > 0
        and int(leaves.max()) == count - 1
        and arrays["levels"].shape == (len(_NAMED_LEVELS),)
        and bool((arrays["levels"] >= 1).all())
        and len(descriptors) == count
        and bool(np.isfinite(descriptors).all())
    )
    if not is_consistent:
        raise TreeFileError("a damaged cut tree: its arrays contradict each other. Segment the image again")
