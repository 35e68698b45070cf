"""What submitted annotations teach about a project."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Example:
    """How a region of this label looked: its descriptor, and the share of the picture that it covers."""

    label: str
    descriptor: tuple[float, ...]
    share: float


@dataclass(frozen=True)
class Lesson:
    """What one submitted annotation teaches.

    `coverings` says for granularities, in their printed form, how well segments of it cover the annotated regions;
    `segmenter` is the version that made them, beside which descriptors of other versions mean nothing; `taken` the
    model version of the prediction that the annotation was started from, empty where it was started from none.
    """

    project: str
    annotation: int
    task: int
    updated_at: str
    segmenter: str
    coverings: Mapping[str, float]
    examples: tuple[Example, ...]
    taken: str = ""

    def to_json(self) -> dict[str, Any]:
        """As text, numbers and lists."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Lesson":
        """What `to_json` gave."""
        examples = [Example(each["label"], tuple(each["descriptor"]), each["share"]) for each in document["examples"]]
        return cls(**{**document, "examples": tuple(examples)})
