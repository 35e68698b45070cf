"""Regions and predictions as Label Studio's documents."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool

from walkcut.labelstudio import shapes
from walkcut.labelstudio.config import ControlTag
from walkcut.labelstudio.packed_mask import holds_packed_mask
from walkcut.labelstudio.results import geometry
from walkcut.labelstudio.tasks import TaskImage
from walkcut.masks.bounds import bounding_box
from walkcut.masks.components import components


@holds_packed_mask
@dataclass(frozen=True)
class Region:
    """A mask of the image's size, a label of its control or the empty one, and a score in [0, 1].

    Label Studio shows the `notes` in the region's Info panel. `id` is the region's id in Label Studio, empty if it has
    none yet. A region is `modified` if a person drew or named it. The `shape` is that in which it was drawn.
    """

    mask: Bool[np.ndarray, "y x"]
    label: str
    score: float = 1.0
    notes: tuple[str, ...] = ()
    id: str = ""
    modified: bool = False
    shape: str = "brush"


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


def make_prediction(regions_by_image: Iterable[tuple[TaskImage, Sequence[Region]]], model_version: str) -> Prediction:
    """Return a prediction; regions are numbered within their image, and get the id of their number.

    So all predictions of a task share their ids: whichever of them an annotation was started from, suggestions with
    these ids replace its regions.
    """
    result = list[dict[str, Any]]()
    for image, regions in regions_by_image:
        numbered = (replace(region, id=region_id(image, str(index))) for index, region in enumerate(regions))
        result += region_items([*numbered], image)
    return Prediction(result, model_version)


def without_duplicates(predictions: Sequence[Prediction]) -> list[Prediction]:
    """Return the predictions, the last of those with the same shapes."""
    values = [[geometry(item) for item in prediction.result] for prediction in predictions]
    return [prediction for i, prediction in enumerate(predictions) if values[i] not in values[i + 1 :]]


def region_items(regions: Sequence[Region], image: TaskImage, beside: Sequence[Region] = ()) -> list[dict[str, Any]]:
    """Return the result items of regions with ids, in order: one for each, and one for its label if that is apart.

    Each region is written with the control that holds its label, else with the image's preferred one. Polygons share
    their borders with each other and with those of the regions `beside` them, for which no items are returned.
    """
    items = dict[str, list[dict[str, Any]]]()
    for control in image.tag.controls:
        own = [region for region in regions if image.tag.control_of(region.label) == control]
        others = [*beside, *(region for region in regions if image.tag.control_of(region.label) != control)]
        polygons = [other for other in others if shapes.SHAPES[image.tag.control_of(other.label).shape].is_connected]
        for region, value in zip(own, _values(own, control, polygons), strict=True):
            items[region.id] = _region_items(region, value, control, image)
    return [item for region in regions for item in items[region.id]]


def _values(regions: Sequence[Region], control: ControlTag, beside: Sequence[Region]) -> Iterable[dict[str, Any]]:
    """Return the values of regions; those that share borders at once, others one by one, as masks take much memory."""
    if shapes.SHAPES[control.shape].is_connected:
        masks = [region.mask for region in regions]
        return shapes.encode(control.shape, [*masks, *_neighbours(masks, beside)], control.tolerance)[: len(masks)]
    return (shapes.encode(control.shape, [region.mask], control.tolerance)[0] for region in regions)


def _neighbours(masks: Sequence[Bool[np.ndarray, "y x"]], beside: Sequence[Region]) -> list[Bool[np.ndarray, "y x"]]:
    """Return the connected parts of the regions whose bounding boxes touch that of a mask."""
    boxes = [bounding_box(mask) for mask in masks]
    near = [region.mask for region in beside if any(_touch(bounding_box(region.mask), box) for box in boxes)]
    return [part for mask in near for part in components(mask)]


def _touch(first: tuple[slice, slice], second: tuple[slice, slice]) -> bool:
    return all(one.start <= other.stop and other.start <= one.stop for one, other in zip(first, second, strict=True))


def _region_items(
    region: Region, value: Mapping[str, Any], control: ControlTag, image: TaskImage
) -> list[dict[str, Any]]:
    """Return the items of a region, see `suggested_label` for their `meta`."""
    height, width = region.mask.shape
    notes = {"text": list(region.notes)} if region.notes else {}
    labels = [region.label] if region.label else []
    page = {} if image.item_index is None else {"item_index": image.item_index}
    item = {
        "id": region.id,
        "from_name": control.name,
        "to_name": image.tag.name,
        "type": control.result_type,
        "origin": "prediction",
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        **page,
        "score": region.score,
        "meta": {**notes, "walkcut": {"label": None if region.modified else region.label}},
    }
    if control.result_type != control.shape:
        return [{**item, "value": {**value, control.result_type: labels}}]
    named = {"from_name": control.labels_name, "type": "labels", "value": {**value, "labels": labels}}
    return [{**item, "value": value}, *([{**item, **named}] if labels else [])]


def connected_regions(regions: Iterable[Region], image: TaskImage) -> list[Region]:
    """Return the regions, one for each connected part where the control of their label takes one part only.

    The largest part keeps the id; the others have none.
    """
    connected = list[Region]()
    for region in regions:
        if not shapes.SHAPES[image.tag.control_of(region.label).shape].is_exact:
            first, *others = components(region.mask)
            connected.append(replace(region, mask=first))
            connected += [replace(region, mask=part, id="") for part in others]
        else:
            connected.append(region)
    return connected


def is_modified(item: Mapping[str, Any], label: str) -> bool:
    """Return whether a person drew the region of a result item, or gave it its `label`.

    Label Studio reports that a person drew it as the item's `origin`. It keeps `meta`, where walkcut notes the label
    that it chose itself: any other was given by a person, as by a point with a label, or by the labels that were active
    when a suggestion was accepted.
    """
    note = _note(item)
    return item.get("origin") != "prediction" or ("label" in note and note["label"] != label)


def suggested_label(item: Mapping[str, Any]) -> str:
    """Return the label that walkcut gave to the region of a result item, empty if a person did."""
    label = _note(item).get("label")
    return label if isinstance(label, str) else ""


def _note(item: Mapping[str, Any]) -> Mapping[str, Any]:
    meta = item.get("meta")
    note = meta.get("walkcut") if isinstance(meta, dict) else None
    return note if isinstance(note, dict) else {}


def region_id(image: TaskImage, source: str) -> str:
    """Return an id that is the same for the same image and source, and differs for any other."""
    return f"{region_id_prefix(image)}{_digest(source)}"


def region_id_prefix(image: TaskImage) -> str:
    """Return the text that all ids of regions on an image begin with."""
    return _digest(f"{image.task.id} {image.reference} {image.name}") + "-"


def deletion_markers(ids: Iterable[str], size: tuple[int, int], image: TaskImage) -> list[dict[str, Any]]:
    """Return suggestions whose acceptance deletes the regions with these ids from an image of `size`, if there are any.

    An accepted suggestion replaces the region with its id, and Label Studio then deletes all `dynamic` regions (as it
    does with prompts): a backend has no other way to delete one. Each marker is one pixel, as masks are never empty.
    """
    pixel = np.zeros(size, np.bool_)
    pixel[0, 0] = True
    marker = region_items([Region(pixel, image.tag.placeholders[0])], image)[0] | {"dynamic": True}
    return [marker | {"id": identity} for identity in ids]


def status_item(lines: Sequence[str], image: TaskImage) -> list[dict[str, Any]]:
    """Return an item that sets the image's status text field to these lines; none without such a field.

    Label Studio shows the text at once, without waiting for acceptance.
    """
    if not image.tag.status_field:
        return []
    return [
        {
            "id": _digest(f"status {image.tag.name}"),
            "from_name": image.tag.status_field,
            "to_name": image.tag.name,
            "type": "textarea",
            "value": {"text": list(lines)},
        }
    ]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]
