"""Images of a bulk run, from the source to the result."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from walkcut.labelstudio.config import ImageTag
from walkcut.labelstudio.predictions import Region
from walkcut.labelstudio.tasks import Task, TaskImage


@dataclass(frozen=True)
class Item:
    """One image to predict.

    Attributes:
        key: unique in the run and the same in every run over the same sources; output files are named by it, so it is
            the image's own name without suffix, where that is not taken (`names.ImageNames`)
        reference: path or URL of the image
        data: data of its task in Label Studio
        task_id: id of that task, if it exists already
        image_index: index of the image among those of its task
        name: path of the image relative to its source, with suffix; unique in the run; empty for tasks of a project
        stamp: digest of the reference and of the file's size and time of change, empty where they are not known
    """

    key: str
    reference: str
    data: Mapping[str, Any] = field(default_factory=dict)
    task_id: int | None = None
    image_index: int = 0
    name: str = ""
    stamp: str = field(default="", compare=False)

    def image(self, image_tags: Sequence[ImageTag]) -> TaskImage:
        """Return the image of its task, for the images of a labelling config."""
        return Task(self.task_id or 0, self.data).images(image_tags)[self.image_index]

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> "Item":
        """Return the item of a line of a checkpoint."""
        return cls(**{attribute.name: row[attribute.name] for attribute in fields(cls)})


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
    """Output of one image: files by name below the output folder, and a JSON record for the checkpoint.

    A file is its bytes, or the path of one on this machine, to which a link is made.
    """

    files: Mapping[str, bytes | Path]
    record: Mapping[str, Any]


@dataclass(frozen=True)
class ItemResult:
    """A finished image, on disk."""

    item: Item
    files: Mapping[str, str]  # staged files by the names of the output files, see `stage_files`
    record: Mapping[str, Any]
    tree_key: str  # of its cut tree, empty if trees are not cached
    tree_bytes: int  # size of the tree's file, 0 if it was not written
    seconds: Mapping[str, float]  # of each stage

    def to_json(self) -> dict[str, Any]:
        """Return the line of a checkpoint; the key and the stamp come first."""
        item = asdict(self.item)
        files = {"tree_key": self.tree_key, "files": list(self.files), "record": self.record}
        return {"key": item.pop("key"), "stamp": item.pop("stamp"), **item, **files}


@dataclass(frozen=True)
class ItemFailure:
    """An image without a result: the stage that failed, and the reason with the remedy."""

    key: str
    reference: str
    stage: str
    reason: str


@dataclass(frozen=True)
class Skipped:
    """A file or task that needs no prediction or can have none, with one of a few reasons; `key` if it has one."""

    reference: str
    reason: str
    key: str = ""
    count: int = 1  # of those that one line stands for


@dataclass
class SkipCount:
    """How many files or tasks were skipped for a reason, and the first three of them."""

    count: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, skipped: Skipped) -> None:
        """Count one."""
        self.count += skipped.count
        self.examples = [*self.examples, skipped.reference][:3]


Outcome = ItemResult | ItemFailure


@dataclass(frozen=True)
class CheckpointEntry:
    """A finished image of an earlier run, and the key of its cut tree."""

    item: Item
    tree_key: str


Job = Item | CheckpointEntry | ItemFailure


def item_of(job: Any) -> Item | ItemFailure:
    """Return the item of a job or an outcome, at any stage; a failure has its key and its reference."""
    return job if isinstance(job, Item | ItemFailure) else job.item


def failure_of(job: Any, stage: str, reason: str) -> ItemFailure:
    """Return the failure of a job."""
    item = item_of(job)
    return ItemFailure(item.key, item.reference, stage, reason)
