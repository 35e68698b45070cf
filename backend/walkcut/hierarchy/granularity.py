"""How fine a segmentation is wished: one value, one parser, one printed form."""

import math
import re
from dataclasses import dataclass
from enum import Enum

from walkcut.errors import GranularityError

_COUNT = re.compile(r"(?:n\s*=\s*)?([0-9]{1,6})")
_THRESHOLD = re.compile(r"(?:tau|τ)\s*=\s*([0-9.eE+-]{1,20})")
_WALK = re.compile(r"k\s*=\s*([0-9]{1,6})")
_MOST_STEPS = 64


class Level(Enum):
    """A named granularity: `AUTO` is where the method's own rule stops, the others are finer from left to right."""

    AUTO = "auto"
    COARSE = "coarse"
    MEDIUM = "medium"
    FINE = "fine"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Segments:
    """A number of segments, at least one."""

    count: int

    def __post_init__(self) -> None:
        if self.count < 1:
            raise GranularityError(f"an image has at least 1 segment, not {self.count}")

    def __str__(self) -> str:
        return str(self.count)


@dataclass(frozen=True)
class Threshold:
    """Every cut that costs at most `tau`: an NCut cost in [0, 2], or in merged trees a cost in [0, 1]."""

    tau: float

    def __post_init__(self) -> None:
        if not 0 <= self.tau < math.inf:
            raise GranularityError(f"a threshold is a number from 0 up, not {self.tau}: write for example tau=0.4")

    def __str__(self) -> str:
        return f"tau={self.tau:g}"


@dataclass(frozen=True)
class Walk:
    """Where the method's own rule would stop after a walk of 1 to 64 `steps`; one step is `auto`, more are coarser.

    A bound on what cuts would cost then, and no new decomposition: see `tree.walk_eigenvalues`.
    """

    steps: int

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= _MOST_STEPS:
            raise GranularityError(f"a walk takes 1 to {_MOST_STEPS} steps, not {self.steps}: write for example k=3")

    def __str__(self) -> str:
        return f"k={self.steps}"


Granularity = Level | Segments | Threshold | Walk


def parse_granularity(text: str) -> Granularity:
    """Read `auto`, `coarse`, `medium`, `fine`, a number of segments (`12`, `n=12`), a threshold (`tau=0.4`) or walk
    steps (`k=3`).

    Upper case and surrounding blanks do not matter. Raises `GranularityError` for anything else.
    """
    word = text.strip().lower()
    if word in {level.value for level in Level}:
        return Level(word)
    if match := _COUNT.fullmatch(word):
        return Segments(int(match[1]))
    if match := _THRESHOLD.fullmatch(word):
        return Threshold(_number(match[1]))
    if match := _WALK.fullmatch(word):
        return Walk(int(match[1]))
    raise GranularityError(
        f"no granularity: {text[:40]!r}; write auto, coarse, medium, fine, a number of segments such as 12, "
        "a threshold such as tau=0.4, or walk steps such as k=3"
    )


def _number(digits: str) -> float:
    try:
        return float(digits)
    except ValueError:
        raise GranularityError(f"no threshold: {digits!r}; write for example tau=0.4") from None
