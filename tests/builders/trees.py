"""Small cut trees with known answers."""

import numpy as np
import torch

from tests.builders.graphs import random_walk
from walkcut.hierarchy.cut_tree import CutTree, build_tree
from walkcut.hierarchy.granularity import Level
from walkcut.hierarchy.hierarchy import Hierarchy
from walkcut.segmentation.algorithms.recursive_ncut import FixedThreshold, recursive_ncut
from walkcut.segmentation.algorithms.upsampling import assign_pixels, leaf_score_maps

LEVELS = {Level.COARSE: 1, Level.MEDIUM: 2, Level.FINE: 3}
# An image of one row; leaves 0-3, of which 0 and 1 merge at 0.9, 2 and 3 at 0.5, and all at 0.1.
ROW = CutTree(
    np.array([[0, 1, 1, 2, 3]], np.uint16),
    Hierarchy(np.array([[0, 1], [2, 3], [4, 5]]), np.array([0.9, 0.5, 0.1]), np.array([False, False, True])),
    LEVELS,
    descriptors=np.array([[1, 0], [0, 1], [0, 1], [0.25, 0.75]], np.float16),
)


def random_tree(seed: int, *, max_leaves: int = 8) -> CutTree:
    """A tree of 13×17 pixels, by recursive cuts of a random walk."""
    P = random_walk(30, seed)
    leaf_of, hierarchy = recursive_ncut(P, rule=FixedThreshold(0.98), max_leaves=max_leaves)
    maps = leaf_score_maps(P, torch.from_numpy(leaf_of), (5, 6))
    return build_tree(assign_pixels(maps, (13, 17)), hierarchy, LEVELS)
