"""Regions and predictions as Label Studio stores them."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool

from walkcut.labelstudio import brush
from walkcut.labelstudio.config import BrushControl
from walkcut.labelstudio.tasks import Task


@dataclass(frozen=True)
class Region:
    """One brush region: a mask of the image's own size, a label of the control, and a score in [0, 1].

    `notes` are shown in its Info panel. An `id` names the region on the screen that it replaces.
    """

    mask: Bool[np.ndarray, "y x"]
    label: str
    score: float
    notes: tuple[str, ...] = ()
    id: str = ""


@dataclass(frozen=True)
class Prediction:
    """A segmentation as Label Studio stores it."""

    result: list[dict[str, Any]]
    score: float
    model_version: str

    def as_json(self) -> dict[str, Any]:
        """The document that a backend answers with."""
        return {"result": self.result, "score": self.score, "model_version": self.model_version}


def prediction(
    task: Task,
    controls: Sequence[tuple[BrushControl, Sequence[Region]]],
    model_version: str,
) -> Prediction:
    """A prediction with the regions of each target, under ids that no other task, version or control shares."""
    result = [
        brush_region(region, control, region.id or region_id(task, control, f"{model_version} {number}"))
        for control, regions in controls
        for number, region in enumerate(regions)
    ]
    scores = [region.score for _, regions in controls for region in regions]
    return Prediction(result, sum(scores) / max(1, len(scores)), model_version)


def brush_region(region: Region, control: BrushControl, identity: str) -> dict[str, Any]:
    """One region as Label Studio shows it."""
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
    """The same region of the same answer has the same id, and no other has."""
    identity = f"{task.id} {task.reference(control)} {control.from_name} {source}"
    return hashlib.sha256(identity.encode(errors="surrogatepass")).hexdigest()[:16]


def deletion_marker(region: Region, control: BrushControl) -> dict[str, Any]:
    """What takes a region off the screen when it is accepted.

    A suggestion takes the place of the region with its id, and Label Studio deletes `dynamic` regions, as prompts are,
    once suggestions are accepted; there is no other way for a backend. One pixel is left to show which region it is.
    """
    pixels = np.flatnonzero(region.mask)
    one = np.zeros(region.mask.shape, np.bool_)
    one.flat[pixels[len(pixels) // 2 : len(pixels) // 2 + 1]] = True
    return brush_region(replace(region, mask=one), control, region.id) | {"dynamic": True}


def status(lines: Sequence[str], control: BrushControl) -> list[dict[str, Any]]:
    """Lines for the text field in which annotators are answered; nothing where the labelling config has none.

    Label Studio shows them at once, without their being accepted.
    """
    if not control.status:
        return []
    return [
        {
            "id": hashlib.sha256(f"status {control.to_name}".encode()).hexdigest()[:16],
            "from_name": control.status,
            "to_name": control.to_name,
            "type": "textarea",
            "value": {"text": list(lines)},
        }
    ]
