"""Regions and predictions as Label Studio's documents."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool

from walkcut.labelstudio import brush
from walkcut.labelstudio.config import BrushControl
from walkcut.labelstudio.packed_mask import holds_packed_mask
from walkcut.labelstudio.tasks import Task


@holds_packed_mask
@dataclass(frozen=True)
class Region:
    """A mask of the image's size, a label of its control, and a score in [0, 1].

    Label Studio shows the `notes` in the region's Info panel. `id` is the region's id in Label Studio, empty if it has
    none yet.
    """

    mask: Bool[np.ndarray, "y x"]
    label: str
    score: float = 1.0
    notes: tuple[str, ...] = ()
    id: str = ""


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
    """Return a prediction; regions without an id get one that no other task, version or control shares."""
    result = [
        brush_region(region, control, region.id or region_id(task, control, f"{model_version} {index}"))
        for control, regions in regions_by_control
        for index, region in enumerate(regions)
    ]
    return Prediction(result, model_version)


def brush_region(region: Region, control: BrushControl, identity: str) -> dict[str, Any]:
    """Return the result item of a region under this id."""
    height, width = region.mask.shape
    notes = {"meta": {"text": list(region.notes)}} if region.notes else {}
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
        **notes,
        "value": {"format": "rle", "rle": brush.encode(region.mask), "brushlabels": [region.label]},
    }


def region_id(task: Task, control: BrushControl, source: str) -> str:
    """Return an id that is the same for the same image, control and source, and differs for any other."""
    return _digest(f"{task.id} {task.image_reference(control)} {control.from_name} {source}")


def deletion_marker(region: Region, control: BrushControl) -> dict[str, Any]:
    """Return a suggestion whose acceptance deletes a region from the screen.

    An accepted suggestion replaces the region with its id, and Label Studio then deletes all `dynamic` regions (as it
    does with prompts): a backend has no other way to delete one. One pixel remains to show which region it is.
    """
    pixels = np.flatnonzero(region.mask)
    middle = np.zeros(region.mask.shape, np.bool_)
    middle.flat[pixels[len(pixels) // 2 : len(pixels) // 2 + 1]] = True
    return brush_region(replace(region, mask=middle), control, region.id) | {"dynamic": True}


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
