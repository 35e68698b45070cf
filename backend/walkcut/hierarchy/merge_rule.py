"""When regions merge, neighbours or not, and what it costs to cut them apart again."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

_ROUNDING = 1e-8  # more than the χ² distance within an image of one colour


@dataclass(frozen=True)
class MergeRule:
    """Separation of two regions, and the cost of cutting them apart again.

    The separation of neighbours is `(b + histogram · χ²) · s^growth · min(1, s / smallest)` with the mean contour `b`
    on the border, the χ² distance of the mean histograms, and the size `s` of the smaller region as a fraction of the
    image. Regions that do not touch, such as sky between branches, have `gap / f` instead of the contour and
    `gap_histogram` instead of `histogram`: `f` is the share that one has in the surroundings of the other. At
    separation `d` a cut costs `exp(-(d / scale)³)`; the rule makes all cuts of cost at most `auto`, and always the
    first, so that there are at least two segments. Coarse, medium and fine make all cuts of at most the costs `levels`.

    Models with learned features have `χ² + embedding · e` instead of `χ²`, with the distance `e` of their means.

    With an infinite `gap` neighbours alone merge. The defaults were tuned on BSDS500 val for the features of the
    classical backbone, but for `embedding`; there the levels have about 4, 8 and 22 segments at the median, and auto
    has 12.
    """

    histogram: float = 0.45
    gap: float = 0.05
    gap_histogram: float = 2.0
    growth: float = 0.1
    smallest: float = 0.003
    scale: float = 0.65
    auto: float = 0.5
    levels: tuple[float, float, float] = (0.27, 0.4, 0.63)
    embedding: float = 1.0

    def distance(
        self, histograms: Float64[np.ndarray, " e"], embeddings: Float64[np.ndarray, " e"]
    ) -> Float64[np.ndarray, " e"]:
        """Return the distance of regions; learned features do not count where the histograms are the same."""
        return histograms + self.embedding * embeddings * (histograms > _ROUNDING)

    def separation(
        self, contour: Float64[np.ndarray, " e"], distance: Float64[np.ndarray, " e"], size: Float64[np.ndarray, " e"]
    ) -> Float64[np.ndarray, " e"]:
        """Return the separation of neighbours, at least 0."""
        return (contour + self.histogram * distance) * self._weight(size)

    def separation_apart(
        self, share: Float64[np.ndarray, " e"], distance: Float64[np.ndarray, " e"], size: Float64[np.ndarray, " e"]
    ) -> Float64[np.ndarray, " e"]:
        """Return the separation of regions that do not touch, at least 0; their `share` is above 0 and at most 1."""
        return (self.gap / share + self.gap_histogram * distance) * self._weight(size)

    def _weight(self, size: Float64[np.ndarray, " e"]) -> Float64[np.ndarray, " e"]:
        return size**self.growth * np.minimum(1, size / self.smallest)

    def cost(self, separation: Float64[np.ndarray, " m"]) -> Float64[np.ndarray, " m"]:
        """Return the costs of cutting merges again, in [0, 1], made monotone along the rows."""
        return np.exp(-((np.maximum.accumulate(separation) / self.scale) ** 3))
