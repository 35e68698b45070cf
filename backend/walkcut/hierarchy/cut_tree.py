"""The cut tree: every granularity of one image, ready to be asked."""

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
from walkcut.hierarchy.descriptors import union_descriptors
from walkcut.hierarchy.granularity import Granularity, Level, Segments, Threshold, Walk
from walkcut.hierarchy.hierarchy import Hierarchy, renumber

_FORMAT = 4
_MOST_BYTES = 1 << 30  # of an unpacked tree file: no honest one comes near
_UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    ValueError,
    KeyError,
    OSError,
    EOFError,
    RuntimeError,  # encrypted or of an unknown method
    MemoryError,  # a shape that no memory holds
    OverflowError,  # nor any number
    TypeError,
)
_NAMED = (Level.COARSE, Level.MEDIUM, Level.FINE)
_ARRAYS = {
    "format": ("i", 0),
    "leaves": ("u", 2),
    "merges": ("i", 2),
    "costs": ("f", 1),
    "is_cut": ("b", 1),
    "levels": ("i", 1),
    "degradations": ("U", 1),
}
_DESCRIPTOR_ARRAYS = {"descriptors": ("f", 2)}
_PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_MOST_LEAVES = 1 << 16
_OF_ANOTHER_VERSION = "not a cut tree of this version of walkcut: segment the image again"
_KINDS = (_ARRAYS, _ARRAYS | _DESCRIPTOR_ARRAYS)


@dataclass(frozen=True)
class CutTree:
    """Every granularity of one image.

    Attributes:
        leaves: the leaf of each pixel, at the image's own size, numbered by first pixel
        hierarchy: how the leaves merge
        levels: the number of segments at coarse, medium and fine
        degradations: what was given up for lack of memory, in words for the annotator
        descriptors: the mean features of the leaves, from which `segment_descriptors` makes those of segments
    """

    leaves: UInt16[np.ndarray, "y x"]
    hierarchy: Hierarchy
    levels: Mapping[Level, int]
    degradations: tuple[str, ...] = ()
    descriptors: Float16[np.ndarray, "k c"] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the image."""
        height, width = self.leaves.shape
        return height, width

    @property
    def nbytes(self) -> int:
        """The bytes of all its arrays but `areas`, a number for each leaf."""
        hierarchy = self.hierarchy
        arrays = [self.leaves, hierarchy.merges, hierarchy.costs, hierarchy.is_cut]
        arrays += [] if self.descriptors is None else [self.descriptors]
        return sum(array.nbytes for array in arrays)

    @cached_property
    def areas(self) -> Int64[np.ndarray, " k"]:
        """The pixels of each leaf."""
        return np.bincount(self.leaves.ravel(), minlength=self.hierarchy.leaves)

    def labels(self, granularity: Granularity) -> UInt16[np.ndarray, "y x"]:
        """The segment of each pixel, numbered from 0 by first pixel.

        Levels are nested pixel by pixel: a segment is a union of leaves, so that splitting one never moves another's
        border. More segments than there are leaves give the leaves.
        """
        return self.groups(granularity).astype(np.uint16)[self.leaves]

    def groups(self, granularity: Granularity) -> Int64[np.ndarray, " k"]:
        """The segment of each leaf."""
        return renumber(self.hierarchy.cluster_of(self._joined(granularity)))

    def distinctness(self, granularity: Granularity) -> Float64[np.ndarray, " s"]:
        """For each segment how clearly it stands apart, in [0, 1]: one less the cost of cutting it from its sibling."""
        cluster_of = self.hierarchy.cluster_of(self._joined(granularity))
        _, first = np.unique(cluster_of, return_index=True)
        return 1 - self.hierarchy.merge_costs()[cluster_of[np.sort(first)]].clip(0, 1)

    def segments(self, granularity: Granularity) -> int:
        """The number of segments at this granularity."""
        return self.hierarchy.leaves - int(self._joined(granularity).sum())

    def segment_descriptors(self, segments: Granularity | Int64[np.ndarray, " k"]) -> Float32[np.ndarray, "s c"]:
        """How the segments look, at a granularity or as `groups` of leaves; see `part_descriptors`."""
        groups = segments if isinstance(segments, np.ndarray) else self.groups(segments)
        return self.part_descriptors((groups == np.arange(int(groups.max()) + 1)[:, None]) * self.areas)

    def part_descriptors(self, areas: Int64[np.ndarray, "s k"]) -> Float32[np.ndarray, "s c"]:
        """How parts of the image look that hold so many pixels of each leaf: unit vectors.

        Comparable by Euclidean distance, also between trees of one segmenter version. Raises `SegmentationError` for
        trees without descriptors, which no segmenter made.
        """
        if self.descriptors is None:
            raise SegmentationError("this tree does not say how its segments look: segment the image again")
        return union_descriptors(self.descriptors, areas)

    def _joined(self, granularity: Granularity) -> Bool[np.ndarray, " j"]:
        """Which joints are carried out at this granularity."""
        match granularity:
            case Level.AUTO:
                return ~self.hierarchy.is_cut
            case Threshold(tau):
                return self.hierarchy.costs > tau
            case Walk(steps):
                kept = walk_eigenvalues(self.hierarchy.costs, 1)[self.hierarchy.is_cut].min(initial=1)
                return ~self.hierarchy.is_cut | (walk_eigenvalues(self.hierarchy.costs, steps) < kept)
            case Segments(count):
                wanted = count
            case level:
                wanted = self.levels[level]
        return np.arange(self.hierarchy.leaves - 1) < self.hierarchy.leaves - wanted

    def to_bytes(self) -> bytes:
        """The tree as a compressed `.npz` file, without pickled objects."""
        arrays: dict[str, NDArray[Any]] = {
            "format": np.array(_FORMAT),
            "leaves": self.leaves,
            "merges": self.hierarchy.merges,
            "costs": self.hierarchy.costs,
            "is_cut": self.hierarchy.is_cut,
            "levels": np.array([self.levels[level] for level in _NAMED]),
            "degradations": np.array(self.degradations, np.str_),
        }
        if self.descriptors is not None:
            arrays["descriptors"] = self.descriptors
        file = io.BytesIO()
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # numpy's stub takes the names for flags
        return file.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> "CutTree":
        """Read what `to_bytes` wrote. Raises `TreeFileError` for anything else, without running anything in it."""
        arrays = _read_arrays(data)
        _check(arrays)
        hierarchy = Hierarchy(arrays["merges"].astype(np.int64), arrays["costs"].astype(np.float64), arrays["is_cut"])
        levels = dict(zip(_NAMED, arrays["levels"].tolist(), strict=True))
        degradations = tuple(arrays["degradations"].tolist())
        descriptors = arrays["descriptors"].astype(np.float16) if "descriptors" in arrays else None
        return cls(arrays["leaves"].astype(np.uint16), hierarchy, levels, degradations, descriptors)


def walk_eigenvalues(costs: Float64[np.ndarray, " j"], steps: int) -> Float64[np.ndarray, " j"]:
    """The largest second eigenvalues that walks of `steps` steps may have where one step's cuts cost so much.

    `P^k` has the eigenvectors of `P` and its eigenvalues to the k-th power (DWC 3.2), and a cut costs at least one
    less its graph's second eigenvalue (Shi & Malik 2000): hence `(1 - cost)^steps`, a cost of `1 - (1 - cost)^steps`.
    This is the bound, taken for the cost, and no new decomposition: on 12 images of BSDS500 val it leaves 8.4, 3.3
    and 2.0 segments on average at 1, 2 and 3 steps, where cutting the walk itself anew leaves 8.4, 5.3 and 3.8.
    """
    return (1 - costs).clip(0) ** steps


def build_tree(
    leaves: Shaped[np.ndarray, "y x"],
    hierarchy: Hierarchy,
    levels: Mapping[Level, int],
) -> CutTree:
    """The tree of an image whose pixels were assigned to `leaves`; leaves without a pixel are left out."""
    present, first, inverse = np.unique(leaves, return_index=True, return_inverse=True)
    kept = present[np.argsort(first)].astype(np.int64)
    rank = np.empty(len(kept), np.uint16)
    rank[np.argsort(first)] = np.arange(len(kept))
    return CutTree(rank[inverse].reshape(leaves.shape), hierarchy.pruned(kept), levels)


def _read_arrays(data: bytes) -> dict[str, NDArray[Any]]:
    """The arrays of a tree file, each of its kind and number of dimensions."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            arrays = {name: _read_array(archive, name) for name in _names(archive)}
    except _UNREADABLE as error:
        raise TreeFileError(f"not a cut tree, or a damaged one ({error}): segment the image again") from error
    kinds = {name: (array.dtype.kind, array.ndim) for name, array in arrays.items()}
    if kinds not in _KINDS or int(arrays["format"]) != _FORMAT:
        raise TreeFileError(_OF_ANOTHER_VERSION)
    return arrays


def _names(archive: zipfile.ZipFile) -> list[str]:
    """The names of an archive's arrays, if they are those of a tree file, packed as it is, and not too large."""
    entries = archive.infolist()
    if sum(entry.file_size for entry in entries) > _MOST_BYTES:
        raise TreeFileError("not a cut tree: it unpacks to over 1 GiB")
    names = [entry.filename.removesuffix(".npy") for entry in entries]
    if not any(sorted(names) == sorted(kind) for kind in _KINDS):
        raise TreeFileError(_OF_ANOTHER_VERSION)
    if any(entry.compress_type not in _PACKINGS for entry in entries):
        raise TreeFileError("not a cut tree: it is packed in another way. Segment the image again")
    return names


def _read_array(archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    with archive.open(f"{name}.npy") as file:
        array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)  # type: ignore[no-untyped-call]
        return array


def _check(arrays: Mapping[str, NDArray[Any]]) -> None:
    """Whether the numbers of a tree file belong together."""
    leaves, merges, costs = arrays["leaves"], arrays["merges"], arrays["costs"]
    rows, count = len(merges), len(merges) + 1
    sound = (
        merges.shape == (rows, 2)
        and rows < _MOST_LEAVES
        and costs.shape == arrays["is_cut"].shape == (rows,)
        and sorted(merges.ravel().tolist()) == list(range(2 * rows))
        and bool((merges.max(1, initial=0) < np.arange(rows) + count).all())
        and bool(np.isfinite(costs).all())
        and bool((np.diff(costs) <= 0).all())
        and leaves.size > 0
        and int(leaves.max()) == count - 1
        and arrays["levels"].shape == (len(_NAMED),)
        and bool((arrays["levels"] >= 1).all())
    )
    if sound and "descriptors" in arrays:
        sound = len(arrays["descriptors"]) == count and bool(np.isfinite(arrays["descriptors"]).all())
    if not sound:
        raise TreeFileError("a damaged cut tree, its parts contradict each other: segment the image again")
