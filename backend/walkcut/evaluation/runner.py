"""Evaluation runs: each image of a data set segmented and scored, with a file from which a later run resumes."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from walkcut.errors import SettingsError
from walkcut.evaluation import metrics
from walkcut.evaluation.boundaries import Boundary, BoundaryCounts, boundaries, boundary_counts
from walkcut.evaluation.datasets import Dataset, Example
from walkcut.evaluation.metrics import Counts, LabelMap
from walkcut.evaluation.protocols import Protocol
from walkcut.evaluation.systems import System

MEASURES = ("covering", "variation", "rand", "accuracy", "f1", "miou", "accuracy_oracle", "f1_oracle", "miou_oracle")
_REGION_MEASURES = (metrics.covering, metrics.variation_of_information, metrics.rand_index)
_FORMAT = 2


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


@dataclass(frozen=True)
class ImageResult:
    """An image's scores at each setting, and its weight in BSDS's program: the number of pixels times truths."""

    name: str
    seconds: float
    weight: int
    scores: tuple[Score, ...]

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "ImageResult":
        """Return the result from its fields as JSON."""
        return cls(**{**document, "scores": tuple(map(Score.from_json, document["scores"]))})


@dataclass(frozen=True)
class EvaluationRun:
    """A system on a data set under a protocol; boundaries, which take longest, only at `boundary_settings`."""

    system: System
    dataset: Dataset
    protocol: Protocol
    boundary_settings: frozenset[str] = frozenset()

    @property
    def run_settings(self) -> dict[str, Any]:
        """Everything that changes the results."""
        return {
            "format": _FORMAT,
            "system": self.system.name,
            "version": self.system.version,
            "settings": list(self.system.settings),
            "dataset": self.dataset.name,
            "split": self.dataset.split,
            "protocol": self.protocol.name,
            "boundaries": sorted(self.boundary_settings),
        }

    def results(self, record: Path | None = None) -> Iterator[ImageResult]:
        """Yield each image's result, in the data set's order: from the file `record`, or scored and appended to it.

        Raises `SettingsError` if the file belongs to another run.
        """
        known = {} if record is None else self._recorded(record)
        for example in self.dataset.examples:
            if example.name not in known:
                result = self._result(example)
                if record is not None:
                    with record.open("a") as file:
                        file.write(json.dumps(asdict(result), default=np.ndarray.tolist) + "\n")
            yield known.get(example.name) or result

    def segment(self, crop: UInt8[np.ndarray, "y x 3"], truth: LabelMap) -> Sequence[LabelMap]:
        """Return the system's labels of a cropped image, at each of its settings."""
        return self.system.segment(crop, max(1, len(np.setdiff1d(truth, self.dataset.ignore))))

    def _result(self, example: Example) -> ImageResult:
        image, truths = example.read()
        crop = self.protocol.crop_image(image)
        truths = tuple(self.protocol.crop_truth(truth) for truth in truths)
        begin = time.perf_counter()
        answers = self.segment(crop, truths[0])
        seconds = time.perf_counter() - begin
        human = [boundaries(truth) for truth in truths] if self.boundary_settings else []
        scores = tuple(
            self._score(self.protocol.resize_labels(labels), truths, human if setting in self.boundary_settings else ())
            for setting, labels in zip(self.system.settings, answers, strict=True)
        )
        return ImageResult(example.name, seconds, sum(truth.size for truth in truths), scores)

    def _score(self, labels: LabelMap, truths: Sequence[LabelMap], human_boundaries: Sequence[Boundary]) -> Score:
        """Score labels against all truths, and their boundaries, if they are given, against those of the truths."""
        tables = [self.protocol.table(truth, labels, self.dataset) for truth in truths]
        matched = [metrics.matched_counts(table) for table in tables]
        merged = [metrics.matched_counts(metrics.oracle_merged(table)) for table in tables]
        measures = [
            (*(measure(table) for measure in _REGION_MEASURES), *one_to_one.scores, *oracle.scores)
            for table, one_to_one, oracle in zip(tables, matched, merged, strict=True)
        ]
        means = (float(np.mean(values)) for values in zip(*measures, strict=True))
        return Score(
            segments=len(np.unique(labels)),
            **dict(zip(MEASURES, means, strict=True)),
            counts=None if self.dataset.partitions else matched[0],
            counts_oracle=None if self.dataset.partitions else merged[0],
            boundary=boundary_counts(boundaries(labels), human_boundaries) if human_boundaries else None,
        )

    def _recorded(self, record: Path) -> dict[str, ImageResult]:
        """Return the results in the file, less a last line that is incomplete."""
        expected_header = json.dumps(self.run_settings) + "\n"
        if not record.exists() or not record.stat().st_size:
            record.parent.mkdir(parents=True, exist_ok=True)
            record.write_text(expected_header)
            return {}
        header, *lines = record.read_text().splitlines(keepends=True)
        if header != expected_header:
            raise SettingsError(f"{record} holds the results of another run: delete it, or choose another file")
        if lines and not lines[-1].endswith("\n"):
            record.write_text(header + "".join(lines[:-1]))
            lines = lines[:-1]
        results = [ImageResult.from_json(json.loads(line)) for line in lines]
        return {result.name: result for result in results}
