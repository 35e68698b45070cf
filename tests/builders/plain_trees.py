"""Trees without segments, made without torch."""

import numpy as np

from walkcut.hierarchy.cut_tree import CutTree
from walkcut.hierarchy.granularity import Level
from walkcut.hierarchy.hierarchy import Hierarchy

_LEVELS = {Level.COARSE: 1, Level.MEDIUM: 1, Level.FINE: 1}


def plain_tree(width: int) -> CutTree:
    """Return a tree of one leaf, recognisable by its width."""
    nothing = Hierarchy(np.zeros((0, 2), np.int64), np.zeros(0), np.zeros(0, bool))
    return CutTree(np.zeros((2, width), np.uint16), nothing, _LEVELS)
