"""Random walks between the leaves of a cut tree (Grady 2006)."""

import numpy as np
from jaxtyping import Bool, Float64
from scipy.sparse import coo_array
from scipy.sparse.linalg import spsolve

from walkcut.hierarchy.adjacency import label_adjacency
from walkcut.hierarchy.cut_tree import CutTree

_CONTRAST = 8.0  # by how much a walk avoids a step to a leaf that looks different
_ABSORBED = 1e-9  # of a pixel side: lets walks end anywhere, so that all of them end


def probability_to_meet(
    tree: CutTree, wanted: Bool[np.ndarray, " k"], unwanted: Bool[np.ndarray, " k"]
) -> Float64[np.ndarray, " k"]:
    """Return for each leaf the probability that a walk from it meets a wanted leaf before an unwanted one (Eq. 10).

    A step from a leaf goes to one beside it, in proportion to the length of their border and to `exp(-8 d²)` for the
    distance `d` of their descriptors (Eq. 1), where the tree has any. A walk that can meet neither kind has 0.
    """
    adjacency, count = label_adjacency(tree.leaves), len(wanted)
    first, second = adjacency.pairs.T
    weights = adjacency.lengths.astype(np.float64)
    if tree.descriptors is not None:
        descriptors = tree.segment_descriptors(np.arange(count))
        weights *= np.exp(-_CONTRAST * ((descriptors[first] - descriptors[second]) ** 2).sum(1))
    one_way = coo_array((weights, (first, second)), (count, count))
    graph = (one_way + one_way.T).tocsr()
    free = np.flatnonzero(~(wanted | unwanted))
    index = np.arange(len(free))
    degrees = coo_array((graph.sum(1)[free] + _ABSORBED, (index, index)), (len(free), len(free)))
    probability = wanted.astype(np.float64)
    probability[free] = spsolve((degrees - graph[free][:, free]).tocsc(), graph[free] @ probability)
    return probability
