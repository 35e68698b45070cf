"""Annotation and draft results as regions: every shape that annotators draw becomes a mask of the image's size."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from jaxtyping import UInt16

from walkcut.errors import BrushError, RequestError
from walkcut.labelstudio.config import UNLABELLED, BrushControl
from walkcut.labelstudio.predictions import Region, is_modified
from walkcut.labelstudio.prompts import result_items
from walkcut.labelstudio.shapes import MASKS, Size
from walkcut.labelstudio.tags import PROMPTS, is_prompt

_MAX_REGIONS: Final = np.iinfo(np.uint16).max
_MAX_MASK_BYTES: Final = 1 << 32  # all masks of one result together
_REGION_TYPE: Final = re.compile(r"labels$|^(bitmask|ellipse|keypoint|polygon|rectangle|vector)$")


def annotated_regions(
    result: object, control: BrushControl | str, size: Size, *, strict: bool = False
) -> tuple[Region, ...]:
    """Return the regions in the `result` of an annotation or a draft on an image of `size` (height, width), in order.

    `control` selects the regions of a brush control, or of all controls of an image (its `to_name`). Brush masks and
    strokes, and rectangles, ellipses, polygons and key points with a label become regions; the label of a brush region
    may be empty. Prompts, negative key points, the second item that Label Studio adds to an accepted region, and empty
    masks do not. The rotation of the view does not matter: Label Studio's coordinates are those of the unrotated image.

    Items that cannot be read are left out or, if `strict`, raise `BrushError` or `RequestError`. Raises `RequestError`
    where the masks would take more than 4 GiB.
    """
    regions, errors = read_regions(result, control, size)
    if strict and errors:
        raise errors[0]
    return regions


def read_regions(
    result: object, control: BrushControl | str, size: Size
) -> tuple[tuple[Region, ...], tuple[BrushError | RequestError, ...]]:
    """Return the regions as `annotated_regions`, and an error for each item that cannot be read or has an empty mask.

    Raises `RequestError` where the masks would take more than 4 GiB.
    """
    items = [item for item in _region_items(result) if _belongs(item, control)]
    if len(items) * size[0] * size[1] > _MAX_MASK_BYTES:
        raise RequestError(f"{len(items)} regions on an image of {size[1]}×{size[0]} pixels are too many: draw fewer")
    regions: list[Region] = []
    errors: list[BrushError | RequestError] = []
    for item in items:
        try:
            region = _read_region(item, size, control)
        except (BrushError, RequestError) as error:
            errors.append(error)
            continue
        if region.mask.any():
            regions.append(region)
        else:
            errors.append(RequestError(f"region {region.id} covers no pixel of the image: draw it on the image"))
    return tuple(regions), tuple(errors)


def region_numbers(regions: Sequence[Region], size: Size) -> UInt16[np.ndarray, "y x"]:
    """Return the index of each pixel's region, counted from 1 in the order given, or 0 outside all regions.

    Smaller regions lie on top of larger ones, so that no mask hides a stroke or a click; of equal ones the later wins.
    Raises `RequestError` for more than 65535 regions.
    """
    if len(regions) > _MAX_REGIONS:
        raise RequestError(f"{len(regions)} regions are more than {_MAX_REGIONS}: annotate fewer in one image")
    labels = np.zeros(size, np.uint16)
    for index, region in sorted(enumerate(regions, 1), key=lambda pair: -int(pair[1].mask.sum())):
        labels[region.mask] = index
    return labels


def annotated_image_names(result: object) -> tuple[str, ...]:
    """Return the names of the images (`to_name`) with regions in a result, in order of appearance."""
    names = [item.get("to_name") for item in _region_items(result)]
    return tuple(dict.fromkeys(name for name in names if isinstance(name, str)))


def unread_controls(result: object, controls: Sequence[BrushControl]) -> tuple[str, ...]:
    """Return the names of the controls (`from_name`) whose regions in a result belong to no brush control."""
    drawn = [item for item in result_items(result) if _REGION_TYPE.search(item["type"]) and "rle" not in item["value"]]
    shapes = [item for item in drawn if not is_prompt(_label(item))] + _region_items(result)
    names = [item.get("from_name") for item in shapes if not any(_belongs(item, control) for control in controls)]
    return tuple(dict.fromkeys(name for name in names if isinstance(name, str)))


def unread_regions(result: object, image: str | None = None) -> tuple[RequestError, ...]:
    """Return an error for each region, of an image or of all, that `read_regions` passes over."""
    read = {item.get("id") for item in _region_items(result)}
    drawn = [
        item
        for item in result_items(result)
        if _REGION_TYPE.search(item["type"]) and image in {None, item.get("to_name")} and item.get("id") not in read
    ]
    types = {item.get("id"): item["type"] for item in reversed(drawn) if not _is_command(item)}
    return tuple(
        RequestError(
            f"region {identity} ({kind}): it has no label, or is of a kind that is not read: use BrushLabels, "
            "PolygonLabels, RectangleLabels, EllipseLabels or KeyPointLabels"
        )
        for identity, kind in reversed(types.items())
    )


def suggested_names(result: object, control: BrushControl) -> list[tuple[str, str]]:
    """Return the name that walkcut gave to each region of a control and the one that it has, where it gave a name.

    Predicted regions carry their label in `meta`, which Label Studio keeps; neutral labels are no names.
    """
    items = [item for item in _region_items(result) if _belongs(item, control)]
    pairs = [(_suggested_label(item), control.label_of(_label(item))) for item in items]
    return [(given, label) for given, label in pairs if given in set(control.labels) - set(control.neutral_labels)]


def _suggested_label(item: Mapping[str, Any]) -> str:
    meta = item.get("meta")
    note = meta.get("walkcut") if isinstance(meta, dict) else None
    label = note.get("label") if isinstance(note, dict) else None
    return label if isinstance(label, str) else ""


def _region_items(result: object) -> list[dict[str, Any]]:
    """Return the items of a result that are positive regions: with a label that is not a prompt's, or of a brush.

    Label Studio gives a brush region without a label the type of its tag, which is "brush" for a plain `Brush`.
    """
    shapes = [item for item in result_items(result) if item["type"] in MASKS and item.get("is_positive") is not False]
    # On accept Label Studio gives a brush region a second result, of the type of another label that is selected.
    named = {str(item["id"]) for item in shapes if item["type"] == "brushlabels" and "id" in item}
    return [
        item
        for item in shapes
        if (item["type"] == "brushlabels" and _label(item) not in PROMPTS)
        or (item["type"] == "brush" and str(item.get("id")) not in named)
        or ("rle" not in item["value"] and _label(item) != UNLABELLED and not is_prompt(_label(item)))
    ]


def _is_command(item: Mapping[str, Any]) -> bool:
    return is_prompt(_label(item)) or item.get("is_positive") is False


def _belongs(item: Mapping[str, Any], control: BrushControl | str) -> bool:
    if isinstance(control, str):
        return item.get("to_name") == control
    return item.get("to_name") == control.to_name and (
        item["type"] == "brush" or item.get("from_name") == control.from_name
    )


def _label(item: Mapping[str, Any]) -> str:
    """Return the first label of an item, or the empty one."""
    labels = item["value"].get("brushlabels" if item["type"] == "brush" else item["type"])
    return labels[0] if isinstance(labels, list) and labels and isinstance(labels[0], str) else UNLABELLED


def _read_region(item: Mapping[str, Any], size: Size, control: BrushControl | str) -> Region:
    """Return an item's region. Raises `BrushError` or `RequestError`, with the region's id, for malformed items."""
    identity = item["id"] if isinstance(item.get("id"), str) else ""
    height, width = size
    drawn_width, drawn_height = item.get("original_width") or width, item.get("original_height") or height
    if (drawn_width, drawn_height) != (width, height):
        raise RequestError(
            f"region {identity} was drawn on an image of {drawn_width!r:.20}×{drawn_height!r:.20} pixels, not "
            f"{width}×{height}: use the annotation of this image"
        )
    try:
        mask = MASKS[item["type"]](item["value"], size)
    except (BrushError, RequestError) as error:
        raise type(error)(f"region {identity}: {error}; export the annotation again") from error
    label = _label(item) if isinstance(control, str) else control.label_of(_label(item))
    return Region(mask, label, id=identity, modified=is_modified(item))
