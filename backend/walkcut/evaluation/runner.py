"""Evaluation runs: each image of a data set segmented and scored, with a file from which a later run resumes."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, Integer, UInt8

from walkcut.errors import SettingsError
from walkcut.evaluation.boundaries import boundaries
from walkcut.evaluation.datasets import Dataset, Example
from walkcut.evaluation.protocols import Protocol
from walkcut.evaluation.scoring import Score, score
from walkcut.evaluation.systems import System

_FORMAT = 2


@dataclass(frozen=True)
class ImageResult:
    """An image's scores at each of the system's settings, and the seconds for segmenting it.

    `weight` is the number of pixels times the number of truths, by which BSDS's program pools images.
    """

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
                result = self._score(example)
                if record is not None:
                    with record.open("a") as file:
                        file.write(json.dumps(asdict(result), default=np.ndarray.tolist) + "\n")
            yield known.get(example.name) or result

    def segment(
        self, crop: UInt8[np.ndarray, "y x 3"], truth: Int64[np.ndarray, "h w"]
    ) -> Sequence[Integer[np.ndarray, "_ _"]]:
        """Return the system's labels of a cropped image, at each of its settings."""
        return self.system.segment(crop, max(1, len(np.setdiff1d(truth, self.dataset.ignore))))

    def _score(self, example: Example) -> ImageResult:
        image, truths = example.read()
        crop = self.protocol.crop_image(image)
        truths = tuple(self.protocol.crop_truth(truth) for truth in truths)
        begin = time.perf_counter()
        answers = self.segment(crop, truths[0])
        seconds = time.perf_counter() - begin
        human = [boundaries(truth) for truth in truths] if self.boundary_settings else []
        scores = tuple(
            score(labels, truths, self.dataset, self.protocol, human if setting in self.boundary_settings else ())
            for setting, labels in zip(self.system.settings, answers, strict=True)
        )
        return ImageResult(example.name, seconds, sum(truth.size for truth in truths), scores)

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
