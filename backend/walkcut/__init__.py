"""walkcut: zero-shot brush pre-annotations for Label Studio, by random walks and normalised cuts."""

from walkcut.backbones import load_extractor
from walkcut.errors import WalkcutError
from walkcut.hierarchy.cut_tree import CutTree
from walkcut.hierarchy.granularity import parse_granularity
from walkcut.labelstudio import brush
from walkcut.learning.oracle_merge import oracle_merge, oracle_merge_tree
from walkcut.segmentation.presets import RECIPES, Recipe
from walkcut.segmentation.segmenter import Segmenter, load_segmenter

__all__ = [
    "RECIPES",
    "CutTree",
    "Recipe",
    "Segmenter",
    "WalkcutError",
    "brush",
    "load_extractor",
    "load_segmenter",
    "oracle_merge",
    "oracle_merge_tree",
    "parse_granularity",
]
