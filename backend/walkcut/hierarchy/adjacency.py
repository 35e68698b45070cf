"""Adjacency of labels in a label map: pairs that touch, and the lengths of their borders."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Int64, Integer


@dataclass(frozen=True)
class Adjacency:
    """Pairs of labels that share a pixel side, each pair once.

    Attributes:
        pairs: the two labels, lower one first, in ascending order
        lengths: the length of the border, in pixel sides
        totals: the values given, summed along the border; a side counts the mean of its two pixels
    """

    pairs: Int64[np.ndarray, "e 2"]
    lengths: Int64[np.ndarray, " e"]
    totals: Float64[np.ndarray, " e"]


def label_adjacency(labels: Integer[np.ndarray, "y x"], values: Float[np.ndarray, "y x"] | None = None) -> Adjacency:
    """Return the adjacency of the labels `0 … k - 1` by 4-connectivity; without `values`, totals are zeros."""
    labels, k = labels.astype(np.int64), int(labels.max()) + 1
    values = np.zeros(labels.shape) if values is None else values
    codes, means = [], []
    for across, value in ((labels, values), (labels.T, values.T)):
        a, b = across[1:], across[:-1]
        differ = a != b
        codes.append((np.minimum(a, b) * k + np.maximum(a, b))[differ])
        means.append(((value[1:] + value[:-1]) / 2)[differ])
    edges, edge, lengths = np.unique(np.concatenate(codes), return_inverse=True, return_counts=True)
    totals = np.bincount(edge, np.concatenate(means), len(edges)).astype(np.float64)  # integers without edges
    return Adjacency(np.stack(np.divmod(edges, k), 1), lengths, totals)
