"""Scores of one segmentation of one image against all its truths."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Score":
        """Return the score from its fields as JSON."""
        counts = {
            name: Counts(**{key: np.array(pixels, np.int64) for key, pixels in document[name].items()})
            for name in ("counts", "counts_oracle")
            if document[name]
        }
        boundary = document["boundary"] and BoundaryCounts(**document["boundary"])
        return cls(**{**document, **counts, "boundary": boundary})


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
    measures = [
        (covering(table), variation_of_information(table), rand_index(table), *one_to_one.scores, *oracle.scores)
        for table, one_to_one, oracle in zip(tables, matched, merged, strict=True)
    ]
    return Score(
        len(np.unique(labels)),
        *(float(np.mean(values)) for values in zip(*measures, strict=True)),
        counts=None if dataset.partitions else matched[0],
        counts_oracle=None if dataset.partitions else merged[0],
        boundary=boundary_counts(boundaries(labels), human_boundaries) if human_boundaries else None,
    )
