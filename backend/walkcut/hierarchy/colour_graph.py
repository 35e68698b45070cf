"""Colours for segments, different for neighbours."""

import numpy as np
from jaxtyping import Int64, Integer

from walkcut.hierarchy.adjacency import label_adjacency


def colour_graph(labels: Integer[np.ndarray, "y x"], colours: int) -> Int64[np.ndarray, " k"]:
    """Return a colour in `0 … colours - 1` for each label `0 … k - 1`, different from its neighbours' where possible.

    Greedy, smallest degree last (Matula & Beck 1983): six colours are enough where segments are connected. A label
    takes the colour that the fewest of its neighbours have, and of those the one used least so far.
    """
    neighbours: list[set[int]] = [set() for _ in range(int(labels.max()) + 1)]
    for a, b in label_adjacency(labels).pairs.tolist():
        neighbours[a].add(b)
        neighbours[b].add(a)
    colour_of = np.full(len(neighbours), -1)
    uses = np.zeros(colours, np.int64)
    for label in reversed(_smallest_last(neighbours)):
        taken = [colour_of[neighbour] for neighbour in neighbours[label] if colour_of[neighbour] >= 0]
        colour_of[label] = np.lexsort((uses, np.bincount(taken, minlength=colours)))[0]
        uses[colour_of[label]] += 1
    return colour_of


def _smallest_last(neighbours: list[set[int]]) -> list[int]:
    """Return the labels in order of removal, always the one with the fewest neighbours left."""
    degree = {label: len(adjacent) for label, adjacent in enumerate(neighbours)}
    order = []
    while degree:
        label = min(degree, key=lambda candidate: (degree[candidate], candidate))
        del degree[label]
        order.append(label)
        for neighbour in neighbours[label] & degree.keys():
            degree[neighbour] -= 1
    return order
