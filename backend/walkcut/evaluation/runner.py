"""A run: every image of a data set segmented by a candidate and scored, with a file that a later run goes on with."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
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

_FORMAT = 1


@dataclass(frozen=True)
class ImageResult:
    """An image's scores at each of the candidate's settings, and what it took.

    `weight` is the number of pixels times that of truths, by which BSDS's program pools images.
    """

    name: str
    seconds: float
    weight: int
    scores: tuple[Score, ...]

    def to_json(self) -> dict[str, Any]:
        """As numbers and lists."""
        scores = [each.to_json() for each in self.scores]
        return {"name": self.name, "seconds": self.seconds, "weight": self.weight, "scores": scores}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "ImageResult":
        """What `to_json` gave."""
        scores = tuple(Score.from_json(each) for each in document["scores"])
        return cls(document["name"], document["seconds"], document["weight"], scores)


@dataclass(frozen=True)
class Run:
    """Which candidate is scored on what, and how; at `boundary_settings` boundaries too, which takes the longest."""

    system: System
    dataset: Dataset
    protocol: Protocol
    boundary_settings: frozenset[str] = frozenset()

    @property
    def fingerprint(self) -> dict[str, Any]:
        """All that changes the results."""
        return {
            "format": _FORMAT,
            "candidate": self.system.name,
            "version": self.system.version,
            "settings": list(self.system.settings),
            "dataset": self.dataset.name,
            "split": self.dataset.split,
            "protocol": self.protocol.name,
            "boundaries": sorted(self.boundary_settings),
        }

    def results(self, record: Path | None = None) -> Iterator[ImageResult]:
        """Each image's result, in the data set's order; those in the file `record` are taken from it, others added.

        Raises `SettingsError` where the file is of another run.
        """
        known = {} if record is None else self._recorded(record)
        for example in self.dataset.examples:
            if example.name not in known:
                result = self._score(example)
                if record is not None:
                    with record.open("a") as file:
                        file.write(json.dumps(result.to_json()) + "\n")
            yield known.get(example.name) or result

    def segment(
        self, view: UInt8[np.ndarray, "y x 3"], truth: Int64[np.ndarray, "h w"]
    ) -> Sequence[Integer[np.ndarray, "_ _"]]:
        """The candidate's answers for a view, at each of its settings."""
        return self.system.segment(view, max(1, len(np.setdiff1d(truth, self.dataset.ignore))))

    def _score(self, example: Example) -> ImageResult:
        image, truths = example.read()
        view = self.protocol.view(image)
        seen = [self.protocol.truth(truth) for truth in truths]
        begin = time.perf_counter()
        answers = self.segment(view, seen[0])
        seconds = time.perf_counter() - begin
        drawn = [boundaries(truth) for truth in seen] if self.boundary_settings else []
        scores = tuple(
            score(labels, seen, self.dataset, self.protocol, drawn if setting in self.boundary_settings else ())
            for setting, labels in zip(self.system.settings, answers, strict=True)
        )
        return ImageResult(example.name, seconds, int(np.sum([truth.size for truth in seen])), scores)

    def _recorded(self, record: Path) -> dict[str, ImageResult]:
        """The results that the file holds already; a line that was cut off by the end of its run is forgotten."""
        if not record.exists() or not record.stat().st_size:
            record.parent.mkdir(parents=True, exist_ok=True)
            record.write_text(json.dumps(self.fingerprint) + "\n")
            return {}
        header, *lines = record.read_text().splitlines(keepends=True)
        if _read(header) != self.fingerprint:
            raise SettingsError(f"{record} holds the results of another run: delete it, or choose another file")
        if lines and not lines[-1].endswith("\n"):
            record.write_text(header + "".join(lines[:-1]))
            lines = lines[:-1]
        results = [ImageResult.from_json(json.loads(line)) for line in lines]
        return {result.name: result for result in results}


def _read(line: str) -> object:
    """The JSON of a line; nothing for what is none."""
    with suppress(ValueError):
        return json.loads(line)
    return None
