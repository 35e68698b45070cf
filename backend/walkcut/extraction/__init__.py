"""What a model, or the picture itself, says about which places belong together."""

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from jaxtyping import Float, UInt8
from torch import Tensor

from walkcut.errors import SettingsError

Part = Literal["maps", "features", "contour"]


@dataclass(frozen=True)
class AttentionMap:
    """Self-attention at one resolution, averaged over heads and layers.

    Row `i` of `weights` says where patch `i` looks; rows sum to one; patches are numbered row by row.
    """

    grid: tuple[int, int]
    weights: Float[Tensor, "n n"]


@dataclass(frozen=True)
class Evidence:
    """What an extractor found; parts that were not asked for are empty or `None`.

    `features` are comparable between pictures; `contour` is in [0, 1], high where regions end.
    """

    maps: tuple[AttentionMap, ...] = ()
    features: Float[Tensor, "c h w"] | None = None
    contour: Float[Tensor, "y x"] | None = None


@runtime_checkable
class Extractor(Protocol):
    """Anything that turns a picture into evidence; `version` changes when its answers do."""

    @property
    def version(self) -> str:
        """Name and revision, part of the model version."""
        ...

    def extract(self, image: UInt8[Tensor, "y x 3"], parts: frozenset[Part]) -> Evidence:
        """The evidence's `parts` of an upright sRGB picture of any size from 16×16."""
        ...


MODELS = ("embedded",)


def load_extractor(name: str) -> Extractor:
    """The extractor of this name. Raises `SettingsError` for one that there is none of."""
    if name != "embedded":
        raise SettingsError(f"no model {name!r}: choose one of {', '.join(MODELS)}")
    from walkcut.extraction.embedded import EmbeddedExtractor  # noqa: PLC0415 - models are loaded when chosen

    return EmbeddedExtractor()
