"""Contingency tables of two label images, and the region scores, which are all computed from them.

A table without pixels scores as a perfect one.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Int64, Integer, Real
from scipy.optimize import linear_sum_assignment

from walkcut.errors import SegmentationError

ContingencyTable: TypeAlias = Int64[np.ndarray, "t s"]  # pixels that each truth label shares with each segment
LabelMap: TypeAlias = Integer[np.ndarray, "_ _"]
ClassCounts: TypeAlias = Int64[np.ndarray, " t"]


def contingency_table(
    truth: LabelMap, segments: LabelMap, *, classes: int | None = None, ignore: int | None = None
) -> ContingencyTable:
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


def coarsened(table: ContingencyTable, groups: Integer[np.ndarray, " s"]) -> Int64[np.ndarray, "t g"]:
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


@dataclass(frozen=True)
class Counts:
    """True positive, false positive and false negative pixels of each class.

    The papers' averages (DWC supplement A): a global average is a score of the summed counts of all images, a
    per-image average is the mean of each image's score.
    """

    tp: ClassCounts
    fp: ClassCounts
    fn: ClassCounts

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn)

    @property
    def accuracy(self) -> float:
        """The fraction of the scored pixels that are right."""
        pixels = int((self.tp + self.fn).sum())
        return float(self.tp.sum()) / pixels if pixels else 1.0

    @property
    def f1(self) -> float:
        """Mean of `2 tp / (2 tp + fp + fn)` over the classes in the truth; a missed one counts as 0.

        No published program shows the rule. DWC's per-image F1 is 73.3 at a mean IoU of 38.0 (supplement, table 6);
        over the same classes it could be at most 55.1, so it does not count absent classes.
        """
        return _mean_of_ratios(2 * self.tp, 2 * self.tp + self.fp + self.fn, self.tp + self.fn > 0)

    @property
    def mean_iou(self) -> float:
        """Mean of `tp / (tp + fp + fn)` over the classes in the truth or the prediction.

        As in DiffSeg's and DiffCut's programs an absent class with a segment counts as 0.
        """
        union = self.tp + self.fp + self.fn
        return _mean_of_ratios(self.tp, union, union > 0)

    @property
    def scores(self) -> tuple[float, float, float]:
        """Accuracy, F1 and mean IoU."""
        return self.accuracy, self.f1, self.mean_iou


def _mean_of_ratios(part: ClassCounts, whole: ClassCounts, counted: Bool[np.ndarray, " t"]) -> float:
    return float((part[counted] / whole[counted]).mean()) if counted.any() else 1.0


def matched_segments(table: ContingencyTable) -> Int64[np.ndarray, " t"]:
    """Return the segment of each class by the one-to-one matching of largest total overlap (Hungarian method).

    If there are fewer segments than classes, empty ones are added, numbered on from `s`. The solver decides which extra
    segment is matched to which absent class; as in DiffSeg's and DiffCut's programs it is SciPy's, on the overlaps in
    pixels, with a row for every class in their order and no fewer columns than rows.
    """
    classes, segments = table.shape
    padded = np.pad(table, ((0, 0), (0, max(0, classes - segments))))
    _, matched = linear_sum_assignment(padded, maximize=True)
    return matched.astype(np.int64)


def matched_counts(table: ContingencyTable) -> Counts:
    """Return one image's counts under `matched_segments`, as in DiffSeg's and DiffCut's programs.

    A pixel outside its class's segment is that class's `fn`; a pixel of another class in a class's segment is that
    class's `fp`. Extra segments match absent classes and become their `fp`; only segments beyond the number of classes
    stay unmatched and count as `fn` alone (DiffSeg section 4: "considered false negatives").
    """
    classes, segments = table.shape
    matched = matched_segments(table)
    real = matched < segments
    tp, claimed = np.zeros((2, classes), np.int64)
    tp[real] = table[real, matched[real]]
    claimed[real] = table.sum(axis=0)[matched[real]]
    return Counts(tp, claimed - tp, table.sum(axis=1) - tp)


def primary_classes(table: ContingencyTable) -> Int64[np.ndarray, " s"]:
    """Return the class with which each segment overlaps most: the first of several, 0 for an empty segment."""
    return table.argmax(axis=0)


def oracle_merged(table: ContingencyTable) -> Int64[np.ndarray, "t t"]:
    """Return the table after all segments of each primary class became one, column `i` for class `i`.

    `matched_counts` of it gives the oracle-merged scores (DWC supplement A). No merge of the segments is more accurate.
    """
    return table @ np.eye(len(table), dtype=np.int64)[primary_classes(table)]


def background_groups(table: ContingencyTable, background: int = 0) -> Int64[np.ndarray, " s"]:
    """Return each segment's group under DiffCut's many-to-one background (supplement H, program).

    Foreground classes are matched first, without the background's pixels. The segments of classes in the image stay;
    all others, even extra segments on an object, become one new segment, numbered `s`.
    """
    foreground = np.delete(table, background, axis=0)
    present = foreground.any(axis=1)
    segments = np.arange(table.shape[1])
    kept = matched_segments(foreground)[present]
    return np.where(np.isin(segments, kept), segments, len(segments))


def merge_background(table: ContingencyTable, background: int = 0) -> Int64[np.ndarray, "t g"]:
    """Return the table after DiffCut's many-to-one background, see `background_groups`: VOC, Context, COCO-Object."""
    return coarsened(table, background_groups(table, background))


def covering(table: ContingencyTable) -> float:
    """Return the covering of the truth by the segments, in [0, 1]: Arbeláez et al. 2011, section 2.3.3.

    Each truth region's best intersection over union with a segment, averaged with its pixels as weight.
    """
    true, predicted, pixels = _totals(table)
    if not pixels:
        return 1.0
    union = true[:, None] + predicted - table
    return float(true @ (table / np.maximum(union, 1)).max(axis=1)) / pixels


def variation_of_information(table: ContingencyTable) -> float:
    """Return H(truth | segments) + H(segments | truth) in bits, as BSDS's: Arbeláez et al. 2011, section 2.3.1."""
    true, predicted, pixels = _totals(table)
    rows, columns = table.nonzero()
    shared = table[rows, columns]
    bits = np.log2(true[rows] / shared) + np.log2(predicted[columns] / shared)
    return float(shared @ bits) / max(pixels, 1)


def rand_index(table: ContingencyTable) -> float:
    """Return the fraction of pixel pairs that both partitions join or both separate, in [0, 1]: Rand 1971.

    The probabilistic Rand index of several human truths is the mean of their Rand indices (Arbeláez et al. 2011,
    section 2.3.2).
    """
    true, predicted, pixels = _totals(table)
    joined, by_true, by_predicted = (int((n * (n - 1) // 2).sum()) for n in (table, true, predicted))
    pairs = pixels * (pixels - 1) // 2
    return (pairs - by_true - by_predicted + 2 * joined) / pairs if pairs else 1.0


def _totals(table: ContingencyTable) -> tuple[Int64[np.ndarray, " t"], Int64[np.ndarray, " s"], int]:
    """Return the pixels of each truth label, of each segment, and of the image."""
    return table.sum(axis=1), table.sum(axis=0), int(table.sum())


@dataclass(frozen=True)
class OdsOis:
    """The best score with one granularity for all images (ODS) and with the best one for each image (OIS).

    `granularity` is the column of the ODS; the first of several.
    """

    ods: float
    ois: float
    granularity: int


def ods_ois(scores: Real[np.ndarray, "i g"], weights: Real[np.ndarray, " i"] | None = None) -> OdsOis:
    """Return ODS and OIS of scores of images (rows) at granularities (columns): Arbeláez et al. 2011.

    A score is the mean over an image's human truths. BSDS's program pools covering over images and humans: pass the
    number of pixels times humans as `weights`; it averages the Rand index and variation of information equally. Pass
    the negative of a distance. Raises `SegmentationError` if there is nothing to score.
    """
    check_scorable(*scores.shape)
    means = np.average(scores, axis=0, weights=weights)
    best = int(means.argmax())
    return OdsOis(float(means[best]), float(np.average(scores.max(axis=1), weights=weights)), best)


def check_scorable(images: int, granularities: int) -> None:
    """Raise `SegmentationError` unless there is an image and a granularity."""
    if not (images and granularities):
        raise SegmentationError(
            f"no best of {images} images at {granularities} granularities: score at least one of each"
        )
