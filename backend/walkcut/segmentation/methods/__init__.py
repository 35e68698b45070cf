"""The methods: ways from the evidence of an image to its cut tree."""

from typing import Protocol, runtime_checkable

from jaxtyping import UInt8
from torch import Tensor

from walkcut.backbones import FeatureKind, ImageFeatures
from walkcut.hierarchy.cut_tree import CutTree


@runtime_checkable
class Method(Protocol):
    """A way from evidence to a cut tree, with its settings."""

    @property
    def requires(self) -> frozenset[FeatureKind]:
        """What evidence the method needs."""
        ...

    def build_tree(self, image_features: ImageFeatures, image: UInt8[Tensor, "y x 3"]) -> CutTree:
        """The cut tree of the image that the evidence is of; its `AUTO` is the method's own answer."""
        ...
