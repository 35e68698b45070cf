"""Bottom-up region merging: leaves of a fine partition merge, the least separated pair first."""

import heapq

import numpy as np
from jaxtyping import Float, Float64, Int64
from scipy.sparse import coo_array
from skimage.segmentation import watershed
from torch import Tensor

from walkcut.backbones.classical import chi_square
from walkcut.errors import SegmentationError
from walkcut.hierarchy.adjacency import facing_counts, label_adjacency
from walkcut.hierarchy.hierarchy import Hierarchy, renumber
from walkcut.hierarchy.merge_rule import MergeRule

_Border = tuple[float, float]  # length in pixel sides, and the contour summed along it
_Pair = tuple[float, int, int]  # separation, and the two regions
_NO_BORDER: _Border = (0.0, 0.0)
_MIN_SIZE = 0.25  # pixels; slivers are smaller, and would all be separated by 0
_MAX_APART = 256  # regions left when those that do not touch begin to merge: finer ones are texture
_REACH = 32  # a strip between regions that do not touch is narrower than the longer side divided by this


def watershed_leaves(contour: Float[Tensor, "y x"]) -> Int64[np.ndarray, "y x"]:
    """Return the catchment basins of the local minima of a contour map, numbered by first pixel."""
    return renumber(watershed(contour.numpy(force=True), connectivity=1).astype(np.int64))


def merge_leaves(
    leaves: Int64[np.ndarray, "y x"],
    contour: Float[Tensor, "h w"],
    features: Float[Tensor, "c _ _"],
    *,
    embedding: Float[Tensor, "d _ _"] | None = None,
    rule: MergeRule | None = None,
) -> Hierarchy:
    """Merge leaves `0 … k - 1`, the least separated pair first, until one region is left.

    Regions need not touch once no more than 256 are left: then it is enough that they face each other across a strip
    about 1/32 of the longer side wide. `features` are not negative, such as histograms; those of the `embedding` may
    be. Leaves need not be connected. Raises `SegmentationError` for negative features and for sizes that differ.
    """
    embedding = features[:0] if embedding is None else embedding
    if not leaves.shape == contour.shape == features.shape[1:] == embedding.shape[1:]:
        sizes = leaves.shape, *(tuple(maps.shape[-2:]) for maps in (contour, features, embedding))
        raise SegmentationError(f"leaves, contour and features differ in size {sizes}: resample them to one")
    if (features < 0).any():
        raise SegmentationError(f"features go down to {features.min():.3g}: merging needs non-negative features")
    rule = rule or MergeRule()
    maps = np.concatenate([features.numpy(force=True), embedding.numpy(force=True)])
    regions = _Regions(leaves, contour.numpy(force=True), maps, rule, bins=len(features))
    queue = regions.pairs()
    heapq.heapify(queue)
    merged: list[_Pair] = []
    while queue:
        separation, a, b = heapq.heappop(queue)
        if regions.is_left[a] and regions.is_left[b]:
            merged.append((separation, a, b))
            for pair in regions.merge(a, b):
                heapq.heappush(queue, pair)
    separations, *merges = np.array(merged).reshape(-1, 3).T
    costs = rule.cost(separations)
    return Hierarchy(np.stack(merges, 1).astype(np.int64), costs, costs <= max(rule.auto, costs.min(initial=1)))


class _Regions:
    """Regions by their node in the hierarchy: their sums over pixels, and the borders with each of their neighbours.

    The size of a region is its area less half the length of its borders, 0 for a sliver one pixel wide. The first
    `bins` features are histograms, the others an embedding.
    """

    def __init__(
        self,
        leaves: Int64[np.ndarray, "y x"],
        contour: Float[np.ndarray, "y x"],
        features: Float[np.ndarray, "c y x"],
        rule: MergeRule,
        bins: int,
    ) -> None:
        k, pixels = int(leaves.max()) + 1, leaves.size
        member = coo_array((np.ones(pixels), (leaves.ravel(), np.arange(pixels))), (k, pixels)).tocsr()
        areas, adjacency = member.sum(1), label_adjacency(leaves, contour)
        halves = np.bincount(adjacency.pairs.ravel(), adjacency.lengths.repeat(2) / 2, k)
        self._rule, self._leaves, self._nodes, self._bins = rule, leaves, k, bins
        self._areas = np.pad(areas, (0, k - 1))
        self._sizes = np.pad(areas - halves, (0, k - 1))
        self._sums = np.pad(member @ features.reshape(-1, pixels).T.astype(np.float64), ((0, k - 1), (0, 0)))
        self._facing: _Facing | None = None
        self.is_left = np.arange(2 * k - 1) < k
        self._node_of = np.arange(k)  # of each leaf
        self.borders: list[dict[int, _Border]] = [{} for _ in range(2 * k - 1)]
        borders = zip(adjacency.lengths.tolist(), adjacency.totals.tolist(), strict=True)
        for (a, b), border in zip(adjacency.pairs.tolist(), borders, strict=True):
            self.borders[a][b] = self.borders[b][a] = border

    def pairs(self) -> list[_Pair]:
        """Return all pairs that may merge, with their separations."""
        touching = [(a, b) for a, borders in enumerate(self.borders) for b in borders if a < b]
        return self._separated(touching) + self._all_apart()

    def merge(self, a: int, b: int) -> list[_Pair]:
        """Merge two regions into the next node; return the new pairs that may merge."""
        node, self._nodes = self._nodes, self._nodes + 1
        for sums in (self._areas, self._sizes, self._sums):
            sums[node] = sums[a] + sums[b]
        first, second = self.borders[a], self.borders[b]
        self._sizes[node] += first.get(b, _NO_BORDER)[0]
        self.borders[a] = self.borders[b] = {}
        neighbours = (first.keys() | second.keys()) - {a, b}
        for neighbour in neighbours:
            lengths, contours = zip(first.get(neighbour, _NO_BORDER), second.get(neighbour, _NO_BORDER), strict=True)
            borders = self.borders[neighbour]
            borders.pop(a, None), borders.pop(b, None)
            borders[node] = self.borders[node][neighbour] = (sum(lengths), sum(contours))
        self.is_left[[a, b, node]] = False, False, True
        self._node_of[(self._node_of == a) | (self._node_of == b)] = node
        touching = self._separated([(neighbour, node) for neighbour in neighbours])
        if self._facing is None:
            return touching + self._all_apart()
        self._facing.merge(a, b, node)
        return touching + self._separated_apart(self._facing, [node])

    def _separated(self, pairs: list[tuple[int, int]]) -> list[_Pair]:
        """Return pairs of neighbours with their separations."""
        length, contour = np.array([self.borders[a][b] for a, b in pairs]).reshape(-1, 2).T
        separations = self._rule.separation(contour / length, *self._compared(pairs))
        return [(separation, a, b) for separation, (a, b) in zip(separations.tolist(), pairs, strict=True)]

    def _all_apart(self) -> list[_Pair]:
        """Return all pairs that face each other and do not touch; none while many regions are left."""
        left = np.flatnonzero(self.is_left)
        if len(left) > _MAX_APART:
            return []
        self._facing = _Facing(left, np.searchsorted(left, self._node_of)[self._leaves])
        return self._separated_apart(self._facing, left.tolist())

    def _separated_apart(self, facing: "_Facing", nodes: list[int]) -> list[_Pair]:
        """Return the pairs of these nodes with earlier ones that they face and do not touch."""
        shares = {
            (other, node): share
            for node in nodes
            for other, share in facing.shares(node)
            if other < node and other not in self.borders[node]
        }
        pairs = list(shares)
        separations = self._rule.separation_apart(np.array([*shares.values()]), *self._compared(pairs))
        return [(separation, a, b) for separation, (a, b) in zip(separations.tolist(), pairs, strict=True)]

    def _compared(self, pairs: list[tuple[int, int]]) -> tuple[Float64[np.ndarray, " e"], Float64[np.ndarray, " e"]]:
        """Return the χ² distance of the mean histograms of pairs, and the size of the smaller region."""
        a, b = np.array(pairs, np.int64).reshape(-1, 2).T
        means = self._sums[a] / self._areas[a, None], self._sums[b] / self._areas[b, None]
        sizes = np.maximum(np.minimum(self._sizes[a], self._sizes[b]), _MIN_SIZE) / self._leaves.size
        return self._distance(*means), sizes

    def _distance(
        self, first: Float64[np.ndarray, "e c"], second: Float64[np.ndarray, "e c"]
    ) -> Float64[np.ndarray, " e"]:
        """Return the distance of mean features; that of embeddings, vectors of length 1 before, is at most 1."""
        (p, x), (q, y) = ((means[:, : self._bins], means[:, self._bins :]) for means in (first, second))
        return self._rule.distance(chi_square(p, q), ((x - y) ** 2).sum(-1) / 4)


class _Facing:
    """How much of the surroundings of each region belongs to each other one; both are left to merge.

    The surroundings of a region are the pixels outside it at a fixed distance from its own.
    """

    def __init__(self, nodes: Int64[np.ndarray, " k"], labels: Int64[np.ndarray, "y x"]) -> None:
        self._nodes = nodes.copy()  # of each label, -1 once it has merged into another
        self._counts = facing_counts(labels, max(1, max(labels.shape) // _REACH))

    def merge(self, a: int, b: int, node: int) -> None:
        """Merge two nodes into another."""
        kept, dropped = self._label(a), self._label(b)
        for counts in (self._counts, self._counts.T):
            counts[kept] += counts[dropped]
            counts[dropped] = 0
        self._counts[kept, kept] = 0
        self._nodes[[kept, dropped]] = node, -1

    def shares(self, node: int) -> list[tuple[int, float]]:
        """Return the nodes that share the surroundings of a node, or it theirs, with the larger of the two shares."""
        label = self._label(node)
        counts, totals = self._counts[label], self._counts.sum(1)
        others = np.flatnonzero(counts)
        shares = counts[others] / np.minimum(totals[others], totals[label])
        return list(zip(self._nodes[others].tolist(), shares.tolist(), strict=True))

    def _label(self, node: int) -> int:
        return int(np.flatnonzero(self._nodes == node)[0])
