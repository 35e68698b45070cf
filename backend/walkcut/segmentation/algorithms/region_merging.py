"""Bottom-up region merging: neighbouring leaves of a fine partition merge, the least separated pair first."""

import heapq

import numpy as np
from jaxtyping import Float, Float64, Int64
from scipy.sparse import coo_array
from skimage.segmentation import watershed
from torch import Tensor

from walkcut.backbones.classical import chi_square
from walkcut.errors import SegmentationError
from walkcut.hierarchy.adjacency import label_adjacency
from walkcut.hierarchy.hierarchy import Hierarchy, renumber
from walkcut.hierarchy.merge_rule import MergeRule

_Border = tuple[float, float]  # length in pixel sides, and the contour summed along it
_Pair = tuple[float, int, int]  # separation, and the two regions
_MIN_SIZE = 0.25  # pixels; slivers are smaller, and would all be separated by 0


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
    """Merge neighbouring leaves `0 … k - 1`, the least separated pair first, until one region is left.

    `features` are not negative, such as histograms; those of the `embedding` may be. Leaves need not be connected.
    Raises `SegmentationError` for negative features and for sizes that differ.
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
    queue = regions.separated([(a, b) for a, borders in enumerate(regions.borders) for b in borders if a < b])
    heapq.heapify(queue)
    merged: list[_Pair] = []
    while queue:
        separation, a, b = heapq.heappop(queue)
        if b in regions.borders[a]:  # neither has been merged since
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
        self._rule, self._pixels, self._nodes, self._bins = rule, pixels, k, bins
        self._areas = np.pad(areas, (0, k - 1))
        self._sizes = np.pad(areas - halves, (0, k - 1))
        self._sums = np.pad(member @ features.reshape(-1, pixels).T.astype(np.float64), ((0, k - 1), (0, 0)))
        self.borders: list[dict[int, _Border]] = [{} for _ in range(2 * k - 1)]
        borders = zip(adjacency.lengths.tolist(), adjacency.totals.tolist(), strict=True)
        for (a, b), border in zip(adjacency.pairs.tolist(), borders, strict=True):
            self.borders[a][b] = self.borders[b][a] = border

    def merge(self, a: int, b: int) -> list[_Pair]:
        """Merge two neighbours into the next node; return its pairs with its neighbours."""
        node, self._nodes = self._nodes, self._nodes + 1
        for sums in (self._areas, self._sizes, self._sums):
            sums[node] = sums[a] + sums[b]
        first, second = self.borders[a], self.borders[b]
        self._sizes[node] += first[b][0]
        self.borders[a] = self.borders[b] = {}
        neighbours = (first.keys() | second.keys()) - {a, b}
        for neighbour in neighbours:
            lengths, contours = zip(first.get(neighbour, (0.0, 0.0)), second.get(neighbour, (0.0, 0.0)), strict=True)
            borders = self.borders[neighbour]
            borders.pop(a, None), borders.pop(b, None)
            borders[node] = self.borders[node][neighbour] = (sum(lengths), sum(contours))
        return self.separated([(neighbour, node) for neighbour in neighbours])

    def separated(self, pairs: list[tuple[int, int]]) -> list[_Pair]:
        """Return pairs of neighbours with their separations."""
        a, b = np.array(pairs, np.int64).reshape(-1, 2).T
        length, contour = np.array([self.borders[first][second] for first, second in pairs]).reshape(-1, 2).T
        means = self._sums[a] / self._areas[a, None], self._sums[b] / self._areas[b, None]
        sizes = np.maximum(np.minimum(self._sizes[a], self._sizes[b]), _MIN_SIZE) / self._pixels
        separations = self._rule.separation(contour / length, self._distance(*means), sizes)
        return list(zip(separations.tolist(), a.tolist(), b.tolist(), strict=True))

    def _distance(
        self, first: Float64[np.ndarray, "e c"], second: Float64[np.ndarray, "e c"]
    ) -> Float64[np.ndarray, " e"]:
        """Return the distance of mean features; that of embeddings, vectors of length 1 before, is at most 1."""
        (p, x), (q, y) = ((means[:, : self._bins], means[:, self._bins :]) for means in (first, second))
        return self._rule.distance(chi_square(p, q), ((x - y) ** 2).sum(-1) / 4)
