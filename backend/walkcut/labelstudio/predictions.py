"""Regions and predictions as Label Studio's documents."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool

from walkcut.labelstudio.config import BrushControl
from walkcut.labelstudio.packed_mask import holds_packed_mask
from walkcut.labelstudio.shapes import rle
from walkcut.labelstudio.tasks import Task


@holds_packed_mask
@dataclass(frozen=True)
class Region:
    """A mask of the image's size, a label of its control or the empty one, and a score in [0, 1].

    Label Studio shows the `notes` in the region's Info panel. `id` is the region's id in Label Studio, empty if it has
    none yet. A region is `modified` if a person drew or named it.
    """

    mask: Bool[np.ndarray, "y x"]
    label: str
    score: float = 1.0
    notes: tuple[str, ...] = ()
    id: str = ""
    modified: bool = False


@dataclass(frozen=True)
class Prediction:
    """A segmentation as Label Studio stores it."""

    result: list[dict[str, Any]]
    model_version: str

    @property
    def score(self) -> float:
        """Mean score of its regions, 0 without regions."""
        scores = [item["score"] for item in self.result if "score" in item]
        return sum(scores) / max(1, len(scores))

    def as_json(self) -> dict[str, Any]:
        """Return the document that a backend answers with."""
        return {"result": self.result, "score": self.score, "model_version": self.model_version}


def make_prediction(
    task: Task, regions_by_control: Sequence[tuple[BrushControl, Sequence[Region]]], model_version: str
) -> Prediction:
    """Return a prediction; regions are numbered within their control, and get the id of their number.

    So all predictions of a task share their ids: whichever of them an annotation was started from, suggestions with
    these ids replace its regions.
    """
    result = [
        brush_region(region, control, region_id(task, control, str(index)))
        for control, regions in regions_by_control
        for index, region in enumerate(regions)
    ]
    return Prediction(result, model_version)


def without_duplicates(predictions: Sequence[Prediction]) -> list[Prediction]:
    """Return the predictions, the last of those with the same masks."""
    masks = [[item["value"]["rle"] for item in prediction.result] for prediction in predictions]
    return [prediction for i, prediction in enumerate(predictions) if masks[i] not in masks[i + 1 :]]


def brush_region(region: Region, control: BrushControl, identity: str) -> dict[str, Any]:
    """Return the result item of a region under this id; see `is_modified` for its `meta`."""
    height, width = region.mask.shape
    notes = {"text": list(region.notes)} if region.notes else {}
    return {
        "id": identity,
        "from_name": control.from_name,
        "to_name": control.to_name,
        "type": "brushlabels",
        "origin": "prediction",
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "score": region.score,
        "meta": {**notes, "walkcut": {"label": None if region.modified else region.label}},
        "value": {
            "format": "rle",
            "rle": rle.encode(region.mask),
            "brushlabels": [region.label] if region.label else [],
        },
    }


def is_modified(item: Mapping[str, Any]) -> bool:
    """Return whether a person drew or named the region of a result item.

    Label Studio reports that a person did as the item's `origin`. It keeps `meta`, where walkcut notes the label that
    it chose itself: any other was given by a person, as by a point with a label, or by the labels that were active when
    a suggestion was accepted.
    """
    meta = item.get("meta")
    note = meta.get("walkcut") if isinstance(meta, dict) else None
    labels = item["value"].get("brushlabels") or [""]
    is_renamed = isinstance(note, dict) and "label" in note and [note["label"]] != labels
    return item.get("origin") != "prediction" or is_renamed


def region_id(task: Task, control: BrushControl, source: str) -> str:
    """Return an id that is the same for the same image, control and source, and differs for any other."""
    return f"{region_id_prefix(task, control)}{_digest(source)}"


def region_id_prefix(task: Task, control: BrushControl) -> str:
    """Return the text that all ids of a control's regions on a task's image begin with."""
    return _digest(f"{task.id} {task.image_reference(control)} {control.from_name}") + "-"


def deletion_markers(ids: Iterable[str], size: tuple[int, int], control: BrushControl) -> list[dict[str, Any]]:
    """Return suggestions whose acceptance deletes the regions with these ids from an image of `size`, if there are any.

    An accepted suggestion replaces the region with its id, and Label Studio then deletes all `dynamic` regions (as it
    does with prompts): a backend has no other way to delete one. Each marker is one pixel, as masks are never empty.
    """
    pixel = np.zeros(size, np.bool_)
    pixel[0, 0] = True
    marker = brush_region(Region(pixel, control.placeholders[0]), control, "") | {"dynamic": True}
    return [marker | {"id": identity} for identity in ids]


def status_item(lines: Sequence[str], control: BrushControl) -> list[dict[str, Any]]:
    """Return an item that sets the control's status text field to these lines; none without such a field.

    Label Studio shows the text at once, without waiting for acceptance.
    """
    if not control.status_field:
        return []
    return [
        {
            "id": _digest(f"status {control.to_name}"),
            "from_name": control.status_field,
            "to_name": control.to_name,
            "type": "textarea",
            "value": {"text": list(lines)},
        }
    ]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]
