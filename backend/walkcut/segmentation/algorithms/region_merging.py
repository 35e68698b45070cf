"""Bottom-up region merging: neighbouring leaves of a fine partition merge, the least separated pair first."""

import heapq
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Int64
from scipy.sparse import coo_array
from skimage.segmentation import watershed
from torch import Tensor

from walkcut.backbones.classical import chi_square
from walkcut.errors import SegmentationError
from walkcut.hierarchy.adjacency import label_adjacency
from walkcut.hierarchy.hierarchy import Hierarchy, renumber

_Border = tuple[float, float]  # length in pixel sides, and the contour summed along it
_Pair = tuple[float, int, int]  # separation, and the two regions
_MIN_SIZE = 0.25  # pixels; slivers are smaller, and would all be separated by 0


@dataclass(frozen=True)
class MergeRule:
    """Separation of two neighbouring regions, and the cost of cutting them apart again.

    The separation is `(b + histogram · χ²) · s^growth · min(1, s / smallest)` with the mean contour `b` on the border,
    the χ² distance of the mean histograms, and the size `s` of the smaller region as a fraction of the image. At
    separation `d` a cut costs `exp(-(d / scale)³)`; the rule makes all cuts of cost at most `auto`, and always the
    first, so that there are at least two segments. The defaults were tuned on BSDS500 val with the features of the
    classical backbone.
    """

    histogram: float = 0.45
    growth: float = 0.1
    smallest: float = 0.003
    scale: float = 0.65
    auto: float = 0.43

    def separation(
        self, contour: Float64[np.ndarray, " e"], distance: Float64[np.ndarray, " e"], size: Float64[np.ndarray, " e"]
    ) -> Float64[np.ndarray, " e"]:
        """Return the separation of neighbours, at least 0."""
        return (contour + self.histogram * distance) * size**self.growth * np.minimum(1, size / self.smallest)

    def cost(self, separation: Float64[np.ndarray, " m"]) -> Float64[np.ndarray, " m"]:
        """Return the costs of cutting merges again, in [0, 1], made monotone along the rows."""
        return np.exp(-((np.maximum.accumulate(separation) / self.scale) ** 3))


def watershed_leaves(contour: Float[Tensor, "y x"]) -> Int64[np.ndarray, "y x"]:
    """Return the catchment basins of the local minima of a contour map, numbered by first pixel."""
    basins = watershed(contour.numpy(force=True), connectivity=1)
    return renumber(basins.astype(np.int64))


def merge_leaves(
    leaves: Int64[np.ndarray, "y x"],
    contour: Float[Tensor, "h w"],
    features: Float[Tensor, "c _ _"],
    *,
    rule: MergeRule | None = None,
) -> Hierarchy:
    """Merge neighbouring leaves `0 … k - 1`, the least separated pair first, until one region is left.

    `features` are not negative, such as histograms. Leaves need not be connected. Raises `SegmentationError` for
    negative features and for sizes that differ.
    """
    if not leaves.shape == contour.shape == features.shape[1:]:
        sizes = leaves.shape, tuple(contour.shape), tuple(features.shape[1:])
        raise SegmentationError(f"leaves, contour and features differ in size {sizes}: resample them to one")
    if (features < 0).any():
        raise SegmentationError(f"features go down to {features.min():.3g}: merging needs non-negative features")
    rule = rule or MergeRule()
    regions = _Regions(leaves, contour.numpy(force=True), features.numpy(force=True), rule)
    queue = regions.pairs()
    heapq.heapify(queue)
    merges, separations = [], []
    while queue:
        separation, a, b = heapq.heappop(queue)
        if not regions.adjacent(a, b):
            continue  # one of them has been merged since
        merges.append((a, b))
        separations.append(separation)
        for pair in regions.merge(a, b):
            heapq.heappush(queue, pair)
    costs = rule.cost(np.array(separations, np.float64))
    return Hierarchy(np.array(merges, np.int64).reshape(-1, 2), costs, costs <= max(rule.auto, costs.min(initial=1)))


class _Regions:
    """Regions by their node in the hierarchy: their sums over pixels, and their borders with their neighbours.

    The size of a region is its area less half the length of its borders, 0 for a sliver one pixel wide.
    """

    def __init__(
        self,
        leaves: Int64[np.ndarray, "y x"],
        contour: Float[np.ndarray, "y x"],
        features: Float[np.ndarray, "c y x"],
        rule: MergeRule,
    ) -> None:
        k, pixels = int(leaves.max()) + 1, leaves.size
        member = coo_array((np.ones(pixels), (leaves.ravel(), np.arange(pixels))), (k, pixels)).tocsr()
        areas, adjacency = member.sum(1), label_adjacency(leaves, contour)
        halves = np.bincount(adjacency.pairs.ravel(), adjacency.lengths.repeat(2) / 2, k)
        self._rule, self._pixels, self._nodes = rule, pixels, k
        self._areas = np.pad(areas, (0, k - 1))
        self._sizes = np.pad(areas - halves, (0, k - 1))
        self._sums = np.pad(member @ features.reshape(-1, pixels).T.astype(np.float64), ((0, k - 1), (0, 0)))
        self._borders: list[dict[int, _Border]] = [{} for _ in range(2 * k - 1)]
        borders = zip(adjacency.lengths.tolist(), adjacency.totals.tolist(), strict=True)
        for (a, b), border in zip(adjacency.pairs.tolist(), borders, strict=True):
            self._borders[a][b] = self._borders[b][a] = border

    def adjacent(self, a: int, b: int) -> bool:
        """Return whether neither region has been merged and they share a border."""
        return b in self._borders[a]

    def pairs(self) -> list[_Pair]:
        """Return all pairs of neighbours."""
        edges = [(a, b, border) for a, borders in enumerate(self._borders) for b, border in borders.items() if a < b]
        return self._pairs(edges)

    def merge(self, a: int, b: int) -> list[_Pair]:
        """Merge two neighbours into the next node; return its pairs with its neighbours."""
        node, self._nodes = self._nodes, self._nodes + 1
        self._areas[node] = self._areas[a] + self._areas[b]
        self._sizes[node] = self._sizes[a] + self._sizes[b] + self._borders[a][b][0]
        self._sums[node] = self._sums[a] + self._sums[b]
        self._borders[node] = _union_borders(self._borders[a], self._borders[b], (a, b))
        self._borders[a] = self._borders[b] = {}
        for neighbour, border in self._borders[node].items():
            borders = self._borders[neighbour]
            borders.pop(a, None), borders.pop(b, None)
            borders[node] = border
        return self._pairs([(neighbour, node, border) for neighbour, border in self._borders[node].items()])

    def _pairs(self, edges: list[tuple[int, int, _Border]]) -> list[_Pair]:
        """Return the pairs of these edges with their separations."""
        if not edges:
            return []
        a, b = np.array([edge[:2] for edge in edges]).T
        length, contour = np.array([edge[2] for edge in edges]).T
        means = self._sums[a] / self._areas[a, None], self._sums[b] / self._areas[b, None]
        sizes = np.maximum(np.minimum(self._sizes[a], self._sizes[b]), _MIN_SIZE) / self._pixels
        separations = self._rule.separation(contour / length, chi_square(*means), sizes)
        return list(zip(separations.tolist(), a.tolist(), b.tolist(), strict=True))


def _union_borders(
    first: dict[int, _Border], second: dict[int, _Border], merged: tuple[int, int]
) -> dict[int, _Border]:
    """Return the borders of the union of two neighbours, without the one between them."""
    union = {}
    for neighbour in (first.keys() | second.keys()) - set(merged):
        lengths, contours = zip(first.get(neighbour, (0.0, 0.0)), second.get(neighbour, (0.0, 0.0)), strict=True)
        union[neighbour] = (sum(lengths), sum(contours))
    return union
