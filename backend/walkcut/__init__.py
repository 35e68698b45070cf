"""walkcut: zero-shot brush pre-annotations for Label Studio, by random walks and normalised cuts."""

from walkcut import brush
from walkcut.errors import WalkcutError
from walkcut.extraction import load_extractor
from walkcut.pipeline import Segmenter, load_segmenter
from walkcut.recipes import RECIPES, Recipe
from walkcut.segmentation.granularity import parse_granularity
from walkcut.segmentation.oracle import oracle_merge, oracle_merge_tree
from walkcut.segmentation.tree import CutTree

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
