"""Whatever is evaluated: it segments a picture once for each of its settings."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Integer, UInt8

from walkcut.hierarchy.granularity import Granularity, Level
from walkcut.segmentation.methods.flat import KMeans
from walkcut.segmentation.presets import read_recipe
from walkcut.segmentation.segmenter import Segmenter


@runtime_checkable
class Candidate(Protocol):
    """A way to segment pictures, with one or more settings of how fine it is."""

    @property
    def name(self) -> str:
        """What it is called in tables."""
        ...

    @property
    def version(self) -> str:
        """What changes when its answers do."""
        ...

    @property
    def settings(self) -> tuple[str, ...]:
        """The names of its settings."""
        ...

    def segment(self, image: UInt8[np.ndarray, "y x 3"], parts: int) -> Sequence[Integer[np.ndarray, "y x"]]:
        """The segment of each pixel, from 0 without gaps, at each of the settings.

        `parts` is how many parts the truth has: for what the papers let know it, and for nobody else.
        """
        ...


BASELINES = ("diffseg", "diffseg-table1-kmeans-c", "diffseg-table1-dbscan", "tokencut", "diffcut-table1-maskcut")


@dataclass(frozen=True)
class TreeCandidate:
    """walkcut itself: one tree, cut at several granularities."""

    segmenter: Segmenter
    granularities: tuple[Granularity, ...]

    @property
    def name(self) -> str:
        """The recipe's name."""
        return self.segmenter.recipe.name

    @property
    def version(self) -> str:
        """The segmenter's."""
        return self.segmenter.version

    @property
    def settings(self) -> tuple[str, ...]:
        """The granularities."""
        return tuple(str(granularity) for granularity in self.granularities)

    def segment(self, image: UInt8[np.ndarray, "y x 3"], parts: int) -> Sequence[Integer[np.ndarray, "y x"]]:
        """See `Candidate`."""
        tree = self._informed(parts).tree(image)
        return [tree.labels(granularity) for granularity in self.granularities]

    def _informed(self, parts: int) -> Segmenter:
        """The segmenter; K-means without a number of clusters of its own takes the truth's (DiffSeg's K-Means-S)."""
        recipe = self.segmenter.recipe
        if recipe.method != KMeans(clusters=None):
            return self.segmenter
        return replace(self.segmenter, recipe=replace(recipe, method=KMeans(parts)))


def baseline_candidates(segmenter: Segmenter) -> tuple[TreeCandidate, ...]:
    """The papers' baselines on the same model, as far as it gives what they need, each with its own answer."""
    recipes = [read_recipe(name) for name in BASELINES]
    return tuple(
        TreeCandidate(replace(segmenter, recipe=recipe), (Level.AUTO,))
        for recipe in recipes
        if recipe.method.parts <= segmenter.extractor.offers and recipe != segmenter.recipe
    )
