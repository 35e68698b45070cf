"""Systems under evaluation: each segments an image once for each of its settings."""

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
    """A way to segment images, at one or more settings, for example granularities."""

    @property
    def name(self) -> str:
        """The name in tables."""

    @property
    def version(self) -> str:
        """Changes whenever the labels do."""

    @property
    def settings(self) -> tuple[str, ...]:
        """The names of the settings."""

    def segment(self, image: UInt8[np.ndarray, "y x 3"], true_segments: int) -> Sequence[Integer[np.ndarray, "y x"]]:
        """Return the segment of each pixel, from 0 without gaps, at each of the settings.

        `true_segments` is the number of segments in the truth, for the baselines that the papers give it.
        """


BASELINES = ("diffseg", "diffseg-table1-kmeans-c", "diffseg-table1-dbscan", "tokencut", "diffcut-table1-maskcut")


@dataclass(frozen=True)
class TreeSystem:
    """A segmenter whose cut tree is read at several granularities."""

    segmenter: Segmenter
    granularities: tuple[Granularity, ...]

    @property
    def name(self) -> str:
        """The preset's name."""
        return self.segmenter.preset.name

    @property
    def version(self) -> str:
        """The segmenter's version."""
        return self.segmenter.version

    @property
    def settings(self) -> tuple[str, ...]:
        """The granularities."""
        return tuple(str(granularity) for granularity in self.granularities)

    def segment(self, image: UInt8[np.ndarray, "y x 3"], true_segments: int) -> Sequence[Integer[np.ndarray, "y x"]]:
        """See `System`."""
        segmenter, preset = self.segmenter, self.segmenter.preset
        if preset.method == KMeans(clusters=None):  # DiffSeg's K-Means-S takes the truth's number of clusters
            segmenter = replace(segmenter, preset=replace(preset, method=KMeans(true_segments)))
        tree = segmenter.segment(image)
        return [tree.labels(granularity) for granularity in self.granularities]


def baseline_systems(segmenter: Segmenter) -> tuple[TreeSystem, ...]:
    """Return the papers' baselines on the segmenter's model, those that it has the features for, at level auto."""
    presets = [find_preset(name) for name in BASELINES]
    return tuple(
        TreeSystem(replace(segmenter, preset=preset), (Level.AUTO,))
        for preset in presets
        if preset.method.requires <= segmenter.backbone.provides and preset != segmenter.preset
    )
