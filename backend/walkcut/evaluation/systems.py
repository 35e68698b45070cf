"""Whatever is evaluated: it segments an image once for each of its settings."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Integer, UInt8

from walkcut.hierarchy.granularity import Granularity, Level
from walkcut.segmentation.methods.flat import KMeans
from walkcut.segmentation.presets import find_preset
from walkcut.segmentation.segmenter import Segmenter


@runtime_checkable
class System(Protocol):
    """A way to segment images, with one or more settings of how fine it is."""

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

    def segment(self, image: UInt8[np.ndarray, "y x 3"], requires: int) -> Sequence[Integer[np.ndarray, "y x"]]:
        """The segment of each pixel, from 0 without gaps, at each of the settings.

        `requires` is how many parts the truth has: for what the papers let know it, and for nobody else.
        """
        ...


BASELINES = ("diffseg", "diffseg-table1-kmeans-c", "diffseg-table1-dbscan", "tokencut", "diffcut-table1-maskcut")


@dataclass(frozen=True)
class TreeSystem:
    """walkcut itself: one tree, cut at several granularities."""

    segmenter: Segmenter
    granularities: tuple[Granularity, ...]

    @property
    def name(self) -> str:
        """The preset's name."""
        return self.segmenter.preset.name

    @property
    def version(self) -> str:
        """The segmenter's."""
        return self.segmenter.version

    @property
    def settings(self) -> tuple[str, ...]:
        """The granularities."""
        return tuple(str(granularity) for granularity in self.granularities)

    def segment(self, image: UInt8[np.ndarray, "y x 3"], requires: int) -> Sequence[Integer[np.ndarray, "y x"]]:
        """See `System`."""
        tree = self._informed(requires).segment(image)
        return [tree.labels(granularity) for granularity in self.granularities]

    def _informed(self, requires: int) -> Segmenter:
        """The segmenter; K-means without a number of clusters of its own takes the truth's (DiffSeg's K-Means-S)."""
        preset = self.segmenter.preset
        if preset.method != KMeans(clusters=None):
            return self.segmenter
        return replace(self.segmenter, preset=replace(preset, method=KMeans(requires)))


def baseline_systems(segmenter: Segmenter) -> tuple[TreeSystem, ...]:
    """The papers' baselines on the same model, as far as it gives what they need, each with its own answer."""
    presets = [find_preset(name) for name in BASELINES]
    return tuple(
        TreeSystem(replace(segmenter, preset=preset), (Level.AUTO,))
        for preset in presets
        if preset.method.requires <= segmenter.backbone.provides and preset != segmenter.preset
    )
