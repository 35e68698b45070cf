"""Images of a bulk run, from the source to the result."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from walkcut.labelstudio import Region


@dataclass(frozen=True)
class Item:
    """One image to predict.

    Attributes:
        key: unique in the run and the same in every run over the same sources; letters, digits, `._-` and `/` only
        reference: path or URL of the image
        data: data of its task in Label Studio
        task: id of that task, if it exists already
        control: index of the project's control that shows the image
    """

    key: str
    reference: str
    data: Mapping[str, Any] = field(default_factory=dict)
    task: int | None = None
    control: int = 0


@dataclass(frozen=True)
class RegionPrediction:
    """Regions of an image under a model version, largest first, without overlap."""

    model_version: str
    regions: Sequence[Region]


@dataclass(frozen=True)
class ItemPrediction:
    """Predictions for an image: one for each granularity of the plan, the default last."""

    item: Item
    size: tuple[int, int]  # height and width
    predictions: Sequence[RegionPrediction]


@dataclass(frozen=True)
class EncodedItem:
    """Output of one image: files by name below the output folder, and a JSON record for the checkpoint."""

    files: Mapping[str, bytes]
    record: Mapping[str, Any]


@dataclass(frozen=True)
class ItemResult:
    """A finished image, on disk."""

    item: Item
    files: Mapping[str, str]  # staged files by the names of the output files, see `stage_files`
    record: Mapping[str, Any]
    tree: str  # key of its cut tree, empty if trees are not cached
    tree_bytes: int  # size of the tree's file, 0 if it was not written
    seconds: Mapping[str, float]  # of each stage


@dataclass(frozen=True)
class ItemFailure:
    """An image without a result: the stage that failed, and the reason with the remedy."""

    key: str
    reference: str
    stage: str
    reason: str


Outcome = ItemResult | ItemFailure


@dataclass(frozen=True)
class CheckpointEntry:
    """A finished image as the checkpoint holds it; `tree` is the key of its cut tree."""

    item: Item
    tree: str
    files: tuple[str, ...]
    record: Mapping[str, Any]


@runtime_checkable
class Format(Protocol):
    """An output format: images are encoded one by one in any process, and assembled once at the end."""

    @property
    def name(self) -> str:
        """Name on the command line."""

    def encode(self, image: ItemPrediction) -> EncodedItem:
        """Encode one image."""

    def assemble(self, records: Iterable[Mapping[str, Any]], output_dir: Path) -> None:
        """Write the files that describe all images, from their records in the order of their keys.

        Memory does not grow with the number of images. A repeated call replaces the files of the call before.
        """
