"""Contingency tables of two label images, from which every region score is computed."""

import numpy as np
from jaxtyping import Int64, Integer

from walkcut.errors import SegmentationError


def contingency_table(
    truth: Integer[np.ndarray, "y x"],
    segments: Integer[np.ndarray, "h w"],
    *,
    classes: int | None = None,
    ignore: int | None = None,
) -> Int64[np.ndarray, "t s"]:
    """Count the pixels that each truth label (row) shares with each segment (column).

    Rows are the labels `0 … classes - 1`, by default up to the largest; columns the segments `0 …` up to the largest.
    Pixels whose truth is `ignore` are left out; their segments keep their columns. Labels without pixels are rows and
    columns of zeros, which only matching notices. Raises `SegmentationError` if the sizes differ, a label is negative,
    or a truth label is not below `classes`.
    """
    if truth.shape != segments.shape:
        raise SegmentationError(
            f"segments of {segments.shape} do not fit a truth of {truth.shape}: scale one to the other by nearest pixel"
        )
    true, predicted = truth.ravel().astype(np.int64), segments.ravel().astype(np.int64)
    width = _label_count(predicted, "segments")
    if ignore is not None:
        scored = true != ignore
        true, predicted = true[scored], predicted[scored]
    labels = _label_count(true, "truth")
    rows = labels if classes is None else classes
    if labels > rows:
        raise SegmentationError(f"the truth's label {labels - 1} is beyond {rows} classes: map it to one, or ignore it")
    return np.bincount(true * width + predicted, minlength=rows * width).reshape(rows, width)


def coarsened(table: Int64[np.ndarray, "t s"], groups: Integer[np.ndarray, " s"]) -> Int64[np.ndarray, "t g"]:
    """Return the table after segment `i` became part of segment `groups[i]`.

    All levels of a tree need only the table of its leaves: `coarsened(table, tree.segment_of(granularity))`.
    """
    coarse = np.zeros((len(table), int(groups.max()) + 1), np.int64)
    np.add.at(coarse.T, groups, table.T)
    return coarse


def _label_count(labels: Int64[np.ndarray, " n"], source: str) -> int:
    """Return one more than the largest label, and at least 1."""
    if labels.min(initial=0) < 0:
        raise SegmentationError(
            f"label {labels.min()} in the {source}: labels start at 0; ignore the truth's void label"
        )
    return int(labels.max(initial=0)) + 1
