"""What goes through a bulk run: images to do, and images done."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from walkcut.labelstudio import Region


@dataclass(frozen=True)
class Item:
    """One image to pre-label.

    `key` names it within the run and in file names: unique, the same in every run over the same sources, made of
    letters, digits, `._-` and `/` alone. `reference` is where its bytes are, `data` the data of its task in Label
    Studio, `task` the number of that task where it exists already, and `control` which of the project's targets shows
    the image.
    """

    key: str
    reference: str
    data: Mapping[str, Any] = field(default_factory=dict)
    task: int | None = None
    control: int = 0


@dataclass(frozen=True)
class RegionPrediction:
    """An image's regions under a model version, largest first, no pixel in two."""

    model_version: str
    regions: Sequence[Region]


@dataclass(frozen=True)
class ItemPrediction:
    """An image that is done: one labelling for each granularity that was asked for, the default last."""

    item: Item
    size: tuple[int, int]  # height and width
    predictions: Sequence[RegionPrediction]


@dataclass(frozen=True)
class EncodedItem:
    """What an image comes to: files by name below the output folder, and a record that is kept as a line of JSON."""

    files: Mapping[str, bytes]
    record: Mapping[str, Any]


@runtime_checkable
class Format(Protocol):
    """A way to write labellings down. Images are encoded one by one, anywhere; assembled once, in the end."""

    @property
    def name(self) -> str:
        """Its name on the command line."""
        ...

    def encode(self, image: ItemPrediction) -> EncodedItem:
        """What one image comes to; depends on nothing else."""
        ...

    def assemble(self, records: Iterable[Mapping[str, Any]], out: Path) -> None:
        """Write into the folder `out` what holds all images, from their records, in the order of their keys.

        Memory does not grow with their number. Done again, it replaces what it wrote before.
        """
        ...
