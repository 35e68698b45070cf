"""Annotation and draft results as regions: every shape that annotators draw becomes a mask of the image's size."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from jaxtyping import Bool, UInt16
from PIL import Image, ImageDraw
from skimage import draw

from walkcut.errors import BrushError, RequestError
from walkcut.labelstudio import brush
from walkcut.labelstudio.config import UNLABELLED, BrushControl
from walkcut.labelstudio.predictions import Region, is_modified
from walkcut.labelstudio.prompts import result_items
from walkcut.labelstudio.tags import PROMPTS, is_prompt

_MAX_PERCENT: Final = 1000.0  # a shape farther out was not drawn on an image
_MAX_REGIONS: Final = np.iinfo(np.uint16).max
_MAX_MASK_BYTES: Final = 1 << 32  # all masks of one result together
_MAX_PAINTED_PIXELS: Final = 10**11  # all strokes of one region together: about five seconds
_REGION_TYPE: Final = re.compile(r"labels$|^(bitmask|ellipse|keypoint|polygon|rectangle|vector)$")
_Size = tuple[int, int]  # height and width
_Points = list[tuple[float, float]]  # x and y
_Mask = Bool[np.ndarray, "y x"]


def annotated_regions(
    result: object, control: BrushControl | str, size: _Size, *, strict: bool = False
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
    result: object, control: BrushControl | str, size: _Size
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
    shapes = [item for item in result_items(result) if item["type"] in _SHAPES and item.get("is_positive") is not False]
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


def _read_region(item: Mapping[str, Any], size: _Size, control: BrushControl | str) -> Region:
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
        mask = _SHAPES[item["type"]](item["value"], size)
    except (BrushError, RequestError) as error:
        raise type(error)(f"region {identity}: {error}; export the annotation again") from error
    label = _label(item) if isinstance(control, str) else control.label_of(_label(item))
    return Region(mask, label, id=identity, modified=is_modified(item))


def _brush_mask(value: Mapping[str, Any], size: _Size) -> _Mask:
    """Return a brush mask with the strokes that a draft has not yet merged into it drawn on top."""
    rle, strokes = value.get("rle") or [], value.get("touches") or []
    if not (isinstance(rle, list) and isinstance(strokes, list) and {*map(type, rle)} <= {int}):
        raise BrushError("a brush region needs a run-length code that is a list of bytes, and a list of strokes")
    if not (rle or strokes):
        raise BrushError("a brush region has neither a run-length code nor strokes")
    mask = brush.decode(rle, size) if rle else np.zeros(size, np.bool_)
    image = Image.fromarray(mask.astype(np.uint8))
    paths = [_stroke_path(stroke, size) for stroke in strokes]
    if sum(len(points) * min(width * width, mask.size) for points, width in paths) > _MAX_PAINTED_PIXELS:
        raise RequestError("the brush strokes cover the image too many times: draw fewer")
    for stroke, (points, width) in zip(strokes, paths, strict=True):
        _draw_stroke(ImageDraw.Draw(image), points, width, ink=0 if stroke.get("type") == "eraser" else 1)
    return np.asarray(image) > 0


def _draw_stroke(canvas: ImageDraw.ImageDraw, points: _Points, width: float, *, ink: int) -> None:
    """Draw one stroke, a line with round ends and joints."""
    radius = (width - 1) / 2
    canvas.line(points, fill=ink, width=round(width))
    canvas.point([(round(x), round(y)) for x, y in points], fill=ink)  # Pillow's disc of one pixel is empty
    for x, y in points:
        canvas.ellipse((x - radius, y - radius, x + radius, y + radius), fill=ink)


def _stroke_path(stroke: object, size: _Size) -> tuple[_Points, float]:
    """Return the points (x, y) of a stroke, from the centre of the first pixel, and its width, in pixels.

    `relativePoints` (x, y, x, …) are percent of the image, `relativeStrokeWidth` percent of its width. `points` and
    `strokeWidth`, used where those are missing, are taken as pixels of the image.
    """
    if not isinstance(stroke, dict):
        raise RequestError(f"a brush stroke is an object, not {type(stroke).__name__}")
    if stroke.get("relativePoints"):
        numbers, width, limit = stroke["relativePoints"], stroke.get("relativeStrokeWidth"), _MAX_PERCENT
        scale = size[1] / 100, size[0] / 100
    else:
        numbers, width, limit = stroke.get("points"), stroke.get("strokeWidth"), _MAX_PERCENT / 100 * max(size)
        scale = 1.0, 1.0
    if not isinstance(numbers, list) or not numbers or len(numbers) % 2:
        raise RequestError("a brush stroke needs points, each an x and a y")
    x, y = ([_number(value, limit) * factor - 0.5 for value in numbers[axis::2]] for axis, factor in enumerate(scale))
    return list(zip(x, y, strict=True)), max(1.0, _number(width, limit, minimum=0) * scale[0])


def _rectangle_mask(value: Mapping[str, Any], size: _Size) -> _Mask:
    """Return the mask of a rectangle, rotated clockwise about its upper left corner."""
    x, y = _position(value, size)
    width, height = _length(value, "width", size[1]), _length(value, "height", size[0])
    sine, cosine = math.sin(_rotation(value)), math.cos(_rotation(value))
    right, down = (cosine * width, sine * width), (-sine * height, cosine * height)
    corners = [(0.0, 0.0), right, (right[0] + down[0], right[1] + down[1]), down]
    return _fill_polygon([(x + dx, y + dy) for dx, dy in corners], size)


def _ellipse_mask(value: Mapping[str, Any], size: _Size) -> _Mask:
    """Return the mask of an ellipse, rotated clockwise about its centre."""
    x, y = _position(value, size)
    radii = _length(value, "radiusX", size[1]), _length(value, "radiusY", size[0])
    return _fill_ellipse(x, y, radii, size, rotation=_rotation(value))


def _polygon_mask(value: Mapping[str, Any], size: _Size) -> _Mask:
    """Return the mask of a polygon of at least three points."""
    points = value.get("points")
    if not isinstance(points, list) or len(points) < 3 or not all(isinstance(p, list) and len(p) == 2 for p in points):
        raise RequestError("a polygon needs three points, each an x and a y")
    height, width = size
    corners = [(_number(x, _MAX_PERCENT) * width / 100, _number(y, _MAX_PERCENT) * height / 100) for x, y in points]
    return _fill_polygon(corners, size)


def _key_point_mask(value: Mapping[str, Any], size: _Size) -> _Mask:
    """Return a disc of the point's width (percent of the image's), or at least the pixel at its centre."""
    x, y = _position(value, size)
    radius = _length(value, "width", size[1]) / 2
    mask = _fill_ellipse(x, y, (radius, radius), size)
    if 0 <= x <= size[1] and 0 <= y <= size[0]:
        mask[min(int(y), size[0] - 1), min(int(x), size[1] - 1)] = True
    return mask


_SHAPES: Final[Mapping[str, Callable[[Mapping[str, Any], _Size], _Mask]]] = {
    "brushlabels": _brush_mask,
    "brush": _brush_mask,
    "rectanglelabels": _rectangle_mask,
    "ellipselabels": _ellipse_mask,
    "polygonlabels": _polygon_mask,
    "keypointlabels": _key_point_mask,
}


def _fill_ellipse(x: float, y: float, radii: tuple[float, float], size: _Size, *, rotation: float = 0.0) -> _Mask:
    """Return the pixels whose centres lie in an ellipse with radii along x and y, raised to half a pixel."""
    mask = np.zeros(size, np.bool_)
    radius_x, radius_y = (max(radius, 0.5) for radius in radii)
    counterclockwise = -math.remainder(rotation, math.tau)
    mask[draw.ellipse(y - 0.5, x - 0.5, radius_y, radius_x, shape=size, rotation=counterclockwise)] = True
    return mask


def _fill_polygon(corners: Sequence[tuple[float, float]], size: _Size) -> _Mask:
    """Return the pixels whose centres lie inside corners (x, y) in pixels, by the even-odd rule.

    Each edge flips all pixels to its right in the rows that it crosses, so that the work grows with the number of
    corners plus the number of pixels, not with their product.
    """
    height, width = size
    flips = np.zeros((height, width + 1), np.bool_)
    points = np.array(corners) - 0.5
    for (left, top), (right, bottom) in zip(points, np.roll(points, -1, axis=0), strict=True):
        start, stop = (math.ceil(min(max(end, 0), height)) for end in sorted((top, bottom)))
        rows = np.arange(start, stop)
        crossed = left + (rows - top) * (right - left) / ((bottom - top) or 1)
        flips[rows, np.ceil(crossed.clip(0, width)).astype(np.int64)] ^= True
    return np.bitwise_xor.accumulate(flips[:, :width], axis=1)


def _position(value: Mapping[str, Any], size: _Size) -> tuple[float, float]:
    """Return a shape's x and y in pixels, from percent."""
    return _number(value.get("x"), _MAX_PERCENT) * size[1] / 100, _number(value.get("y"), _MAX_PERCENT) * size[0] / 100


def _length(value: Mapping[str, Any], name: str, side: int) -> float:
    """Return a length in pixels, from percent of a side of the image."""
    return _number(value.get(name), _MAX_PERCENT, minimum=0) * side / 100


def _rotation(value: Mapping[str, Any]) -> float:
    """Return a clockwise angle in radians, from degrees."""
    return math.radians(_number(value.get("rotation", 0), _MAX_PERCENT))


def _number(value: object, maximum: float, *, minimum: float | None = None) -> float:
    """Return a number from `minimum` (default: `-maximum`) to `maximum`. Raises `RequestError` for anything else."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise RequestError(f"a shape needs a number, not {type(value).__name__}")
    if not (-maximum if minimum is None else minimum) <= value <= maximum:
        raise RequestError(f"{value!s:.20} is out of range for a shape on an image")
    return float(value)
