"""walkcut: zero-shot brush pre-annotations for Label Studio, by random walks and normalised cuts."""

from walkcut.backbones import load_backbone
from walkcut.errors import WalkcutError
from walkcut.hierarchy.cut_tree import CutTree
from walkcut.hierarchy.granularity import parse_granularity
from walkcut.labelstudio import brush
from walkcut.learning.oracle_merge import oracle_merge, oracle_merge_tree
from walkcut.segmentation.presets import PRESETS, Preset
from walkcut.segmentation.segmenter import Segmenter, load_segmenter

__all__ = [
    "PRESETS",
    "CutTree",
    "Preset",
    "Segmenter",
    "WalkcutError",
    "brush",
    "load_backbone",
    "load_segmenter",
    "oracle_merge",
    "oracle_merge_tree",
    "parse_granularity",
]
