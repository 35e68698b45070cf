"""Adjacency of labels in a label map: pairs that touch or face each other, and colours that differ."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Int64, Integer


@dataclass(frozen=True)
class Adjacency:
    """Pairs of labels that share a pixel side, each pair once."""

    pairs: Int64[np.ndarray, "e 2"]  # the lower label first, in ascending order
    lengths: Int64[np.ndarray, " e"]  # of the borders, in pixel sides
    totals: Float64[np.ndarray, " e"]  # of the values along the borders; a side counts the mean of its two pixels


def label_adjacency(labels: Integer[np.ndarray, "y x"], values: Float[np.ndarray, "y x"] | None = None) -> Adjacency:
    """Return the adjacency of the labels `0 … k - 1` by 4-connectivity; without `values`, totals are zeros."""
    k, codes, means = int(labels.max()) + 1, [], []
    values = np.broadcast_to(np.zeros(1), labels.shape) if values is None else values
    for across, value in ((labels, values), (labels.T, values.T)):
        differ = across[1:] != across[:-1]
        a, b = (side[differ].astype(np.int64) for side in (across[1:], across[:-1]))
        codes.append(np.minimum(a, b) * k + np.maximum(a, b))
        means.append((value[1:][differ] + value[:-1][differ]) / 2)
    edges, edge, lengths = np.unique(np.concatenate(codes), return_inverse=True, return_counts=True)
    totals = np.bincount(edge, np.concatenate(means), len(edges)).astype(np.float64)  # integers without edges
    return Adjacency(np.stack(np.divmod(edges, k), 1), lengths, totals)


def facing_counts(labels: Integer[np.ndarray, "y x"], reach: int) -> Int64[np.ndarray, "k k"]:
    """Return how many pairs of pixels `reach` pixels apart have these two labels of `0 … k - 1`; 0 for equal ones.

    Pixels are paired along rows, columns and both diagonals.
    """
    k, (height, width) = int(labels.max()) + 1, labels.shape
    slant = round(reach / math.sqrt(2))
    counts = np.zeros((k, k), np.int64)
    for down, right in ((reach, 0), (0, reach), (slant, slant), (slant, -slant)):
        if down < height and abs(right) < width:
            upper = labels[: height - down, max(0, -right) : width - max(0, right)]
            lower = labels[down:, max(0, right) : width + min(0, right)]
            counts += np.bincount((upper * k + lower).ravel(), minlength=k * k).reshape(k, k)
    counts += counts.T.copy()
    np.fill_diagonal(counts, 0)
    return counts


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
