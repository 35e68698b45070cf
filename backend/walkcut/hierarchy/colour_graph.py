"""Colours for segments, different for neighbours."""

import numpy as np
from jaxtyping import Int64, Shaped


def colour_graph(labels: Shaped[np.ndarray, "y x"], colours: int) -> Int64[np.ndarray, " k"]:
    """For each label `0 … k - 1` one of so many colours that its neighbours do not have.

    Greedy, smallest degree last: six colours are enough where segments are connected. A label takes the colour that
    fewest of its neighbours have, and among those the one that was used least.
    """
    neighbours = _neighbours(labels)
    chosen = np.full(len(neighbours), -1)
    used = np.zeros(colours, np.int64)
    for label in reversed(_smallest_last(neighbours)):
        taken = np.bincount([chosen[other] for other in neighbours[label] if chosen[other] >= 0], minlength=colours)
        chosen[label] = np.lexsort((used, taken))[0]
        used[chosen[label]] += 1
    return chosen


def _neighbours(labels: Shaped[np.ndarray, "y x"]) -> list[set[int]]:
    """For each label the labels that touch it along an edge of a pixel."""
    count = int(labels.max()) + 1
    sides = [(labels[:-1], labels[1:]), (labels[:, :-1], labels[:, 1:])]
    borders = [(one[one != other].astype(np.int64), other[one != other]) for one, other in sides]
    pairs = np.unique(np.concatenate([one * count + other for one, other in borders]))
    neighbours: list[set[int]] = [set() for _ in range(count)]
    for one, other in zip((pairs // count).tolist(), (pairs % count).tolist(), strict=True):
        neighbours[one].add(other)
        neighbours[other].add(one)
    return neighbours


def _smallest_last(neighbours: list[set[int]]) -> list[int]:
    """Labels in the order of removing, again and again, the one with the fewest neighbours left."""
    left = {label: len(others) for label, others in enumerate(neighbours)}
    order = []
    while left:
        label = min(left, key=lambda candidate: (left[candidate], candidate))
        del left[label]
        order.append(label)
        for other in neighbours[label] & left.keys():
            left[other] -= 1
    return order
