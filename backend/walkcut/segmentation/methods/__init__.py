"""The methods: ways from the evidence of a picture to its cut tree."""

from typing import Protocol, runtime_checkable

from jaxtyping import UInt8
from torch import Tensor

from walkcut.backbones import Evidence, Part
from walkcut.hierarchy.cut_tree import CutTree


@runtime_checkable
class Method(Protocol):
    """A way from evidence to a cut tree, with its settings."""

    @property
    def parts(self) -> frozenset[Part]:
        """What evidence the method needs."""
        ...

    def tree(self, evidence: Evidence, picture: UInt8[Tensor, "y x 3"]) -> CutTree:
        """The cut tree of the picture that the evidence is of; its `AUTO` is the method's own answer."""
        ...
