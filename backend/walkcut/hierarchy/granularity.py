"""Granularities: how fine a segmentation is, as one value with one parser and one printed form."""

import math
import re
from dataclasses import dataclass
from enum import Enum

from walkcut.errors import GranularityError

_COUNT = re.compile(r"(?:n\s*=\s*)?([0-9]{1,6})")
_THRESHOLD = re.compile(r"(?:tau|τ)\s*=\s*([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?)")
_WALK = re.compile(r"k\s*=\s*([0-9]{1,6})")
_MAX_STEPS = 64


class Level(Enum):
    """Named granularity: `AUTO` is the method's own answer; `COARSE`, `MEDIUM` and `FINE` are increasingly fine."""

    AUTO = "auto"
    COARSE = "coarse"
    MEDIUM = "medium"
    FINE = "fine"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Segments:
    """A number of segments, at least 1."""

    count: int

    def __post_init__(self) -> None:
        if self.count < 1:
            raise GranularityError(f"an image has at least 1 segment, not {self.count}")

    def __str__(self) -> str:
        return str(self.count)


@dataclass(frozen=True)
class Threshold:
    """All cuts that cost at most `tau`: an NCut cost in [0, 2], or in merged trees a cost in [0, 1]."""

    tau: float

    def __post_init__(self) -> None:
        if not 0 <= self.tau < math.inf:
            raise GranularityError(f"a threshold must be 0 or more, not {self.tau}: write for example tau=0.4")

    def __str__(self) -> str:
        return f"tau={self.tau:g}"


@dataclass(frozen=True)
class Walk:
    """The segments after a random walk of 1 to 64 `steps`: more steps are coarser, one step is `auto`.

    See `cut_tree.walk_eigenvalues`.
    """

    steps: int

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= _MAX_STEPS:
            raise GranularityError(f"a walk takes 1 to {_MAX_STEPS} steps, not {self.steps}: write for example k=3")

    def __str__(self) -> str:
        return f"k={self.steps}"


Granularity = Level | Segments | Threshold | Walk


def parse_granularity(text: str) -> Granularity:
    """Parse `auto`, `coarse`, `medium`, `fine`, a number of segments, a threshold, or walk steps.

    Case and surrounding blanks are ignored. Raises `GranularityError` for anything else.

    >>> parse_granularity("12"), parse_granularity(" n = 12 ")
    (Segments(count=12), Segments(count=12))
    >>> [str(parse_granularity(text)) for text in ("Fine", "tau=.4", "k=3")]
    ['fine', 'tau=0.4', 'k=3']
    """
    word = text.strip().lower()
    if word in {level.value for level in Level}:
        return Level(word)
    if match := _COUNT.fullmatch(word):
        return Segments(int(match[1]))
    if match := _THRESHOLD.fullmatch(word):
        return Threshold(float(match[1]))
    if match := _WALK.fullmatch(word):
        return Walk(int(match[1]))
    raise GranularityError(
        f"unknown granularity {text[:40]!r}: use auto, coarse, medium, fine, a number of segments such as 12, "
        "a threshold such as tau=0.4, or walk steps such as k=3"
    )
