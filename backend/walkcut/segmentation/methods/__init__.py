"""Segmentation methods: from image features to a cut tree."""

from typing import Protocol, runtime_checkable

from jaxtyping import UInt8
from torch import Tensor

from walkcut.backbones import FeatureKind, ImageFeatures
from walkcut.hierarchy.cut_tree import CutTree


@runtime_checkable
class Method(Protocol):
    """A segmentation method with its settings."""

    @property
    def requires(self) -> frozenset[FeatureKind]:
        """The kinds of features that the method needs."""

    def build_tree(self, features: ImageFeatures, image: UInt8[Tensor, "y x 3"]) -> CutTree:
        """Return the cut tree of an image. Raises `SegmentationError` if the features lack a kind of `requires`."""
