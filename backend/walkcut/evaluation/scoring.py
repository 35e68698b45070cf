"""Scores of one segmentation of one image against all its truths."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64, Integer

from walkcut.evaluation.boundaries import BoundaryCounts, boundaries, boundary_counts
from walkcut.evaluation.datasets import Dataset
from walkcut.evaluation.metrics import (
    Counts,
    covering,
    matched_counts,
    oracle_merged,
    rand_index,
    variation_of_information,
)
from walkcut.evaluation.protocols import Protocol

MEASURES = ("covering", "variation", "rand", "accuracy", "f1", "miou", "accuracy_oracle", "f1_oracle", "miou_oracle")


@dataclass(frozen=True)
class Score:
    """The measures of a segmentation, each the mean over an image's truths.

    `accuracy`, `f1` and `miou` are per image, under one-to-one matching; with `_oracle`, after the segments of each
    class were merged. `counts` and `counts_oracle`, to be summed over images, are set for data sets with classes, and
    `boundary` where boundaries were compared.
    """

    segments: int
    covering: float
    variation: float
    rand: float
    accuracy: float
    f1: float
    miou: float
    accuracy_oracle: float
    f1_oracle: float
    miou_oracle: float
    counts: Counts | None = None
    counts_oracle: Counts | None = None
    boundary: BoundaryCounts | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the score as numbers and lists."""
        return asdict(self, dict_factory=_without_arrays)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Score":
        """Return the score from what `to_json` returned."""
        counts, merged = (_counts(document[name]) for name in ("counts", "counts_oracle"))
        boundary = None if document["boundary"] is None else BoundaryCounts(**document["boundary"])
        numbers = {name: document[name] for name in ("segments", *MEASURES)}
        return cls(**numbers, counts=counts, counts_oracle=merged, boundary=boundary)


def score(
    labels: Integer[np.ndarray, "y x"],
    truths: Sequence[Int64[np.ndarray, "h w"]],
    dataset: Dataset,
    protocol: Protocol,
    human_boundaries: Sequence[Bool[np.ndarray, "h w"]] = (),
) -> Score:
    """Score the labels of a cropped image against truths from `protocol.crop_truth`.

    Boundaries are compared with `human_boundaries`, those of the truths, if given.
    """
    labels = protocol.resize_labels(labels)
    tables = [protocol.table(truth, labels, dataset) for truth in truths]
    matched = [matched_counts(table) for table in tables]
    merged = [matched_counts(oracle_merged(table)) for table in tables]
    return Score(
        segments=len(np.unique(labels)),
        covering=_mean([covering(table) for table in tables]),
        variation=_mean([variation_of_information(table) for table in tables]),
        rand=_mean([rand_index(table) for table in tables]),
        accuracy=_mean([counts.accuracy for counts in matched]),
        f1=_mean([counts.f1 for counts in matched]),
        miou=_mean([counts.mean_iou for counts in matched]),
        accuracy_oracle=_mean([counts.accuracy for counts in merged]),
        f1_oracle=_mean([counts.f1 for counts in merged]),
        miou_oracle=_mean([counts.mean_iou for counts in merged]),
        counts=None if dataset.partitions else matched[0],
        counts_oracle=None if dataset.partitions else merged[0],
        boundary=boundary_counts(boundaries(labels), human_boundaries) if human_boundaries else None,
    )


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def _counts(document: Mapping[str, Any] | None) -> Counts | None:
    if document is None:
        return None
    return Counts(*(np.array(document[name], np.int64) for name in ("tp", "fp", "fn")))


def _without_arrays(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in pairs}
