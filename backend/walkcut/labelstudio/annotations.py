"""Annotation and draft results as regions: every shape that annotators draw becomes a mask of the image's size."""

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
from jaxtyping import UInt16

from walkcut.errors import BrushError, RequestError
from walkcut.labelstudio import shapes
from walkcut.labelstudio.config import UNLABELLED
from walkcut.labelstudio.predictions import Region, is_modified, suggested_label
from walkcut.labelstudio.results import ShapeItem, shape_items
from walkcut.labelstudio.tags import is_prompt
from walkcut.labelstudio.tasks import TaskImage

_MAX_REGIONS: Final = np.iinfo(np.uint16).max
_MAX_MASK_BYTES: Final = 1 << 32  # all masks of one result together
_Size = tuple[int, int]  # height and width


def annotated_regions(
    result: object, image: TaskImage | str, size: _Size, *, strict: bool = False
) -> tuple[Region, ...]:
    """Return the regions in the `result` of an annotation or a draft on an image of `size` (height, width), in order.

    The image is that of a task, or the name of its tag (`to_name`). Masks and outlines become regions, with the label
    of their control, or of a `<Labels>` tag, or without one; on an image given by its name, key points with a label do
    too. Prompts, negative key points and empty masks do not. The rotation of the view does not matter: Label Studio's
    coordinates are those of the unrotated image.

    Items that cannot be read are left out or, if `strict`, raise `BrushError` or `RequestError`. Raises `RequestError`
    where the masks would take more than 4 GiB.
    """
    regions, errors = read_regions(result, image, size)
    if strict and errors:
        raise errors[0]
    return regions


def read_regions(
    result: object, image: TaskImage | str, size: _Size
) -> tuple[tuple[Region, ...], tuple[BrushError | RequestError, ...]]:
    """Return the regions as `annotated_regions`, and an error for each item that cannot be read or has an empty mask.

    Raises `RequestError` where the masks would take more than 4 GiB.
    """
    drawn = _drawn_on(result, image)
    if len(drawn) * size[0] * size[1] > _MAX_MASK_BYTES:
        raise RequestError(f"{len(drawn)} regions on an image of {size[1]}×{size[0]} pixels are too many: draw fewer")
    regions: list[Region] = []
    errors: list[BrushError | RequestError] = []
    for shape in drawn:
        try:
            region = _read_region(shape, size, image)
        except (BrushError, RequestError) as error:
            errors.append(error)
            continue
        if region.mask.any():
            regions.append(region)
        else:
            errors.append(RequestError(f"region {region.id} covers no pixel of the image: draw it on the image"))
    return tuple(regions), tuple(errors)


def region_numbers(regions: Sequence[Region], size: _Size) -> UInt16[np.ndarray, "y x"]:
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
    names = [shape.item.get("to_name") for shape in _drawn(result)]
    return tuple(dict.fromkeys(name for name in names if isinstance(name, str)))


def is_annotated(result: object, image: TaskImage) -> bool:
    """Return whether a result has regions on an image."""
    return bool(_drawn_on(result, image))


def unread_controls(result: object, images: Iterable[TaskImage]) -> tuple[str, ...]:
    """Return the names of the controls (`from_name`) whose regions in a result are on none of the images."""
    held = list(images)
    drawn = [shape.item for shape in _drawn(result) if not any(image.holds(shape.item) for image in held)]
    names = [item.get("from_name") for item in drawn]
    return tuple(dict.fromkeys(name for name in names if isinstance(name, str)))


def unread_regions(result: object, image: str | None = None) -> tuple[RequestError, ...]:
    """Return an error for each region, of an image or of all, that `read_regions` passes over."""
    points = [shape for shape in shape_items(result) if shape.shape == "keypoint" and shape.label == UNLABELLED]
    return tuple(
        RequestError(f"region {shape.id} (keypoint): it has no label: give it one, or draw what it stands for")
        for shape in points
        if image in {None, shape.item.get("to_name")} and shape.item.get("is_positive") is not False
    )


def suggested_names(result: object, image: TaskImage) -> list[tuple[str, str]]:
    """Return the name that walkcut gave to each region of an image and the one that it has, where it gave a name.

    Predicted regions carry their label in `meta`, which Label Studio keeps; neutral labels are no names.
    """
    pairs = [(suggested_label(shape.item), image.tag.label_of(shape.label)) for shape in _drawn_on(result, image)]
    return [(given, label) for given, label in pairs if given in image.tag.labels and image.tag.is_class(given)]


def _drawn_on(result: object, image: TaskImage | str) -> list[ShapeItem]:
    """Return the shapes of regions on an image."""
    if isinstance(image, str):
        return [shape for shape in _drawn(result) if shape.item.get("to_name") == image]
    return [shape for shape in _drawn(result) if image.holds(shape.item) and shape.shape != "keypoint"]


def _drawn(result: object) -> list[ShapeItem]:
    """Return the shapes of a result that are positive regions, no prompts; key points only with a label."""
    return [
        shape
        for shape in shape_items(result)
        if shape.item.get("is_positive") is not False
        and not is_prompt(shape.label)
        and (shape.shape != "keypoint" or shape.label != UNLABELLED)
    ]


def _read_region(shape: ShapeItem, size: _Size, image: TaskImage | str) -> Region:
    """Return a shape's region. Raises `BrushError` or `RequestError`, with the region's id, for malformed items."""
    height, width = size
    item = shape.item
    drawn_width, drawn_height = item.get("original_width") or width, item.get("original_height") or height
    if (drawn_width, drawn_height) != (width, height):
        raise RequestError(
            f"region {shape.id} was drawn on an image of {drawn_width!r:.20}×{drawn_height!r:.20} pixels, not "
            f"{width}×{height}: use the annotation of this image"
        )
    try:
        mask = shapes.decode(shape.shape, shape.value, size)
    except (BrushError, RequestError) as error:
        raise type(error)(f"region {shape.id}: {error}; export the annotation again") from error
    label = shape.label if isinstance(image, str) else image.tag.label_of(shape.label)
    return Region(mask, label, id=shape.id, modified=is_modified(item, shape.label), shape=shape.shape)
