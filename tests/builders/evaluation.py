"""A small data set, and a system with fixed answers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Integer, UInt8

from tests.builders.ground_truth import save_image, save_labels
from tests.builders.scenes import quarter_labels
from walkcut.evaluation.datasets import Dataset, read_dataset

Labels = Integer[np.ndarray, "y x"]
SIZE = (18, 20)
ONE, QUARTERS = np.zeros(SIZE, np.int64), quarter_labels(*SIZE)
PIXELS = np.arange(ONE.size).reshape(SIZE)


@dataclass(frozen=True)
class FixedSystem:
    """A system with a fixed answer for each setting; `calls` holds the numbers of true segments it was given."""

    answers: tuple[Labels, ...] = (ONE, QUARTERS, PIXELS)
    version: str = "1"
    calls: list[int] = field(default_factory=list)
    hook: Callable[[], None] = lambda: None
    name: str = "fixed"

    @property
    def settings(self) -> tuple[str, ...]:
        return tuple(map(str, range(len(self.answers))))

    def segment(self, image: UInt8[np.ndarray, "y x 3"], true_segments: int) -> Sequence[Labels]:
        self.hook()
        self.calls.append(true_segments)
        return self.answers


def quarter_dataset(root: Path, *, classes: bool = False, images: int = 3) -> Dataset:
    """Return images whose truth is the quarters."""
    for index in range(images):
        save_image(root / "images" / f"{index}.png", *SIZE)
        save_labels(root / "labels" / f"{index}.png", QUARTERS.astype(np.uint8))
    if classes:
        (root / "classes.txt").write_text("sky\nsea\nland\nman\nbeast\n")
    return read_dataset("folder", root, "val")
