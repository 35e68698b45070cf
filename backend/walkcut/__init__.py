"""Zero-shot brush pre-annotations for Label Studio at every granularity, from a tree of image segments.

The names are loaded when they are first used: some of them take seconds, as they load torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from walkcut.backbones import load_backbone
    from walkcut.errors import WalkcutError
    from walkcut.hierarchy.cut_tree import CutTree
    from walkcut.hierarchy.granularity import parse_granularity
    from walkcut.learning.oracle_merge import oracle_merge, oracle_merge_tree
    from walkcut.segmentation.presets import PRESETS, Preset
    from walkcut.segmentation.segmenter import Segmenter, load_segmenter

__all__ = [
    "PRESETS",
    "CutTree",
    "Preset",
    "Segmenter",
    "WalkcutError",
    "load_backbone",
    "load_segmenter",
    "oracle_merge",
    "oracle_merge_tree",
    "parse_granularity",
]

_MODULES = {
    "PRESETS": "segmentation.presets",
    "CutTree": "hierarchy.cut_tree",
    "Preset": "segmentation.presets",
    "Segmenter": "segmentation.segmenter",
    "WalkcutError": "errors",
    "load_backbone": "backbones",
    "load_segmenter": "segmentation.segmenter",
    "oracle_merge": "learning.oracle_merge",
    "oracle_merge_tree": "learning.oracle_merge",
    "parse_granularity": "hierarchy.granularity",
}


def __getattr__(name: str) -> object:
    """Load a public name from its module (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    """Return the public names, loaded or not."""
    return __all__
