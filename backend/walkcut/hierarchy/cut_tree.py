"""The cut tree: every granularity of one picture, ready to be asked."""

import io
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float16, Float32, Float64, Int64, Shaped, UInt16
from numpy.typing import NDArray

from walkcut.errors import GranularityError, SegmentationError, TreeFileError
from walkcut.hierarchy.descriptors import union_descriptors
from walkcut.hierarchy.granularity import Granularity, Level, Segments, Threshold, Walk
from walkcut.hierarchy.hierarchy import Hierarchy, renumber
from walkcut.segmentation.algorithms.upsampling import Scores, assign_pixels

_FORMAT = 3
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
    "joints": ("i", 2),
    "costs": ("f", 1),
    "cut": ("b", 1),
    "levels": ("i", 1),
    "concessions": ("U", 1),
}
_SCORE_ARRAYS = {"scores": ("f", 3), "gram": ("f", 2), "patches": ("i", 1)}
_FLOATS = (np.float32, np.float64)  # of scores, in this machine's byte order
_LOOK_ARRAYS = {"descriptors": ("f", 2)}
_PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_MOST_LEAVES = 1 << 16
_OF_ANOTHER_VERSION = "not a cut tree of this version of walkcut: segment the picture again"
_KINDS = (_ARRAYS, _ARRAYS | _SCORE_ARRAYS, _ARRAYS | _LOOK_ARRAYS, _ARRAYS | _SCORE_ARRAYS | _LOOK_ARRAYS)


@dataclass(frozen=True)
class CutTree:
    """Every granularity of one picture.

    `leaves` holds each pixel's leaf at the picture's own size, numbered by first pixel; `levels` the number of segments
    at coarse, medium and fine; `scores`, where the method has them, what `labels_by_mean` needs; `concessions` what was
    given up for lack of memory, in words for the annotator; `descriptors` the leaves' mean features, of which
    `describe` makes those of segments.
    """

    leaves: UInt16[np.ndarray, "y x"]
    hierarchy: Hierarchy
    levels: Mapping[Level, int]
    scores: Scores | None = None
    concessions: tuple[str, ...] = ()
    descriptors: Float16[np.ndarray, "k c"] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the picture."""
        height, width = self.leaves.shape
        return height, width

    @property
    def nbytes(self) -> int:
        """The bytes of all its arrays but `areas`, a number for each leaf."""
        joints, scores = self.hierarchy, self.scores
        arrays = [self.leaves, joints.joints, joints.costs, joints.cut]
        arrays += [] if self.descriptors is None else [self.descriptors]
        tensors = [] if scores is None else [scores.scores, scores.gram, scores.patches]
        return sum(array.nbytes for array in arrays) + sum(tensor.nbytes for tensor in tensors)

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

    def labels_by_mean(self, granularity: Granularity) -> UInt16[np.ndarray, "y x"]:
        """The papers' assignment at this very level (DWC 3.6): each pixel's nearest segment mean.

        Exact from the leaves' scores; borders may move between levels. Raises `GranularityError` for trees without
        scores: their methods assign pixels otherwise.
        """
        if self.scores is None:
            raise GranularityError("this tree holds no mean distributions, by which to assign: use labels()")
        groups = torch.from_numpy(self.groups(granularity)).to(self.scores.patches.device)
        labels = assign_pixels(self.scores.joined(groups), self.size)
        return renumber(labels.astype(np.int64)).astype(np.uint16)

    def groups(self, granularity: Granularity) -> Int64[np.ndarray, " k"]:
        """The segment of each leaf."""
        return renumber(self.hierarchy.tops(self._joined(granularity)))

    def separations(self, granularity: Granularity) -> Float64[np.ndarray, " s"]:
        """For each segment how clearly it stands apart, in [0, 1]: one less the cost of cutting it from its sibling."""
        tops = self.hierarchy.tops(self._joined(granularity))
        _, first = np.unique(tops, return_index=True)
        return 1 - self.hierarchy.parting_costs()[tops[np.sort(first)]].clip(0, 1)

    def segments(self, granularity: Granularity) -> int:
        """The number of segments at this granularity."""
        return self.hierarchy.leaves - int(self._joined(granularity).sum())

    def describe(self, segments: Granularity | Int64[np.ndarray, " k"]) -> Float32[np.ndarray, "s c"]:
        """How the segments look, at a granularity or as `groups` of leaves; see `describe_parts`."""
        groups = segments if isinstance(segments, np.ndarray) else self.groups(segments)
        return self.describe_parts((groups == np.arange(int(groups.max()) + 1)[:, None]) * self.areas)

    def describe_parts(self, areas: Int64[np.ndarray, "s k"]) -> Float32[np.ndarray, "s c"]:
        """How parts of the picture look that hold so many pixels of each leaf: unit vectors.

        Comparable by Euclidean distance, also between trees of one segmenter version. Raises `SegmentationError` for
        trees without descriptors, which no segmenter made.
        """
        if self.descriptors is None:
            raise SegmentationError("this tree does not say how its segments look: segment the picture again")
        return union_descriptors(self.descriptors, areas)

    def _joined(self, granularity: Granularity) -> Bool[np.ndarray, " j"]:
        """Which joints are carried out at this granularity."""
        match granularity:
            case Level.AUTO:
                return ~self.hierarchy.cut
            case Threshold(tau):
                return self.hierarchy.costs > tau
            case Walk(steps):
                kept = walk_eigenvalues(self.hierarchy.costs, 1)[self.hierarchy.cut].min(initial=1)
                return ~self.hierarchy.cut | (walk_eigenvalues(self.hierarchy.costs, steps) < kept)
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
            "joints": self.hierarchy.joints,
            "costs": self.hierarchy.costs,
            "cut": self.hierarchy.cut,
            "levels": np.array([self.levels[level] for level in _NAMED]),
            "concessions": np.array(self.concessions, np.str_),
        }
        if self.scores is not None:
            for name in _SCORE_ARRAYS:
                arrays[name] = getattr(self.scores, name).cpu().numpy()
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
        hierarchy = Hierarchy(arrays["joints"].astype(np.int64), arrays["costs"].astype(np.float64), arrays["cut"])
        scores = None
        if "scores" in arrays:
            scores = Scores(*(torch.from_numpy(arrays[name]) for name in _SCORE_ARRAYS))
        levels = dict(zip(_NAMED, arrays["levels"].tolist(), strict=True))
        concessions = tuple(arrays["concessions"].tolist())
        descriptors = arrays["descriptors"].astype(np.float16) if "descriptors" in arrays else None
        return cls(arrays["leaves"].astype(np.uint16), hierarchy, levels, scores, concessions, descriptors)


def walk_eigenvalues(costs: Float64[np.ndarray, " j"], steps: int) -> Float64[np.ndarray, " j"]:
    """The largest second eigenvalues that walks of `steps` steps may have where one step's cuts cost so much.

    `P^k` has the eigenvectors of `P` and its eigenvalues to the k-th power (DWC 3.2), and a cut costs at least one
    less its graph's second eigenvalue (Shi & Malik 2000): hence `(1 - cost)^steps`, a cost of `1 - (1 - cost)^steps`.
    This is the bound, taken for the cost, and no new decomposition: on 12 pictures of BSDS500 val it leaves 8.4, 3.3
    and 2.0 segments on average at 1, 2 and 3 steps, where cutting the walk itself anew leaves 8.4, 5.3 and 3.8.
    """
    return (1 - costs).clip(0) ** steps


def grow_tree(
    leaves: Shaped[np.ndarray, "y x"],
    hierarchy: Hierarchy,
    levels: Mapping[Level, int],
    scores: Scores | None = None,
) -> CutTree:
    """The tree of a picture whose pixels were assigned to `leaves`; leaves without a pixel are left out."""
    present, first, inverse = np.unique(leaves, return_index=True, return_inverse=True)
    kept = present[np.argsort(first)].astype(np.int64)
    rank = np.empty(len(kept), np.uint16)
    rank[np.argsort(first)] = np.arange(len(kept))
    if scores is not None:
        index = torch.from_numpy(kept).to(scores.patches.device)
        scores = Scores(scores.scores[index], scores.gram[index][:, index], scores.patches[index])
    return CutTree(rank[inverse].reshape(leaves.shape), hierarchy.pruned(kept), levels, scores)


def _read_arrays(data: bytes) -> dict[str, NDArray[Any]]:
    """The arrays of a tree file, each of its kind and number of dimensions."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            arrays = {name: _read_array(archive, name) for name in _names(archive)}
    except _UNREADABLE as error:
        raise TreeFileError(f"not a cut tree, or a damaged one ({error}): segment the picture again") from error
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
        raise TreeFileError("not a cut tree: it is packed in another way. Segment the picture again")
    return names


def _read_array(archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    with archive.open(f"{name}.npy") as file:
        array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)  # type: ignore[no-untyped-call]
        return array


def _check(arrays: Mapping[str, NDArray[Any]]) -> None:
    """Whether the numbers of a tree file belong together."""
    leaves, joints, costs = arrays["leaves"], arrays["joints"], arrays["costs"]
    rows, count = len(joints), len(joints) + 1
    sound = (
        joints.shape == (rows, 2)
        and rows < _MOST_LEAVES
        and costs.shape == arrays["cut"].shape == (rows,)
        and sorted(joints.ravel().tolist()) == list(range(2 * rows))
        and bool((joints.max(1, initial=0) < np.arange(rows) + count).all())
        and bool(np.isfinite(costs).all())
        and bool((np.diff(costs) <= 0).all())
        and leaves.size > 0
        and int(leaves.max()) == count - 1
        and arrays["levels"].shape == (len(_NAMED),)
        and bool((arrays["levels"] >= 1).all())
    )
    if sound and "scores" in arrays:
        scores, gram, patches = (arrays[name].shape for name in _SCORE_ARRAYS)
        sound = (scores[0], gram, patches) == (count, (count, count), (count,)) and arrays["scores"].size > 0
        sound = sound and arrays["gram"].dtype == arrays["scores"].dtype in _FLOATS
        sound = sound and arrays["patches"].dtype == np.int64
    if sound and "descriptors" in arrays:
        sound = len(arrays["descriptors"]) == count and bool(np.isfinite(arrays["descriptors"]).all())
    if not sound:
        raise TreeFileError("a damaged cut tree, its parts contradict each other: segment the picture again")
